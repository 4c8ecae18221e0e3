"""What a checkpoint is by its headers, what it claims to be, and the doubts between the two.

Also how a model becomes a checkpoint folder (the demo's is made, a hub's is fetched), and its tokenizer.

May import: harness.contract, quantizers, quantgate_kernels.
"""
