"""Tiers mixed within one model: what each costs where is measured, the cheapest sum is chosen, and corrected once."""
