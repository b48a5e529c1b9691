"""The frame of the study: paths, stages, notebooks and the report."""
