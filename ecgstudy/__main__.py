"""Run the command line: ``python -m ecgstudy``."""

from ecgstudy.cli import main

raise SystemExit(main())
