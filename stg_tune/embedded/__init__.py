"""The small trained models and scorers that ship with the package, and how they were trained."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""One folder for each embedded model, for the scorers and for the judge."""
