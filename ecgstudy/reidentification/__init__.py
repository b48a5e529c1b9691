"""Stage 2, re-identification: who can be recognised from an ECG, under protocols that hold."""
