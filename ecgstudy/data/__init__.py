"""Every source of records of the study, one module each: the public cohorts, records of your own, synthetic ones."""
