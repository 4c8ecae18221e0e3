import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # report_runs.py, whatever import mode pytest is run with
