"""Models of the study: networks with one contract, the classical attackers, and how they are trained."""
