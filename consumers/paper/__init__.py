"""Paper trading: the runner, its fill models and what they are calibrated on."""
