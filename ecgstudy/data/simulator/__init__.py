"""Synthetic 12-lead electrocardiograms with known person, waves and diagnosis.

A beat is a sum of Gaussians on a three-dimensional heart dipole, placed in
the cardiac cycle as in McSharry et al. 2003 (IEEE Trans Biomed Eng 50:289)
and projected to the leads as in Sameni et al. 2007 (IEEE Trans Biomed Eng
54:2172). The modules follow a record from person to samples:

``templates`` shapes of the waves by diagnosis, ``people`` what stays with a
person and what drifts between sessions, ``rhythm`` when the beats and their
waves come, ``waves`` the dipole, ``leads`` the twelve leads, ``noise`` what
the electrodes add, ``render`` all of it for a batch of records.
"""
