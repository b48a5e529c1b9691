"""Run the command line: ``python -m ecgstudy``."""

from ecgstudy.study.cli import main

raise SystemExit(main())
