"""Synthetic 12-lead ECG: Gaussians on a heart dipole (McSharry 2003), projected to the leads (Sameni 2007)."""
