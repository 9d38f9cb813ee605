"""One file per experiment; `common.py` has the defaults and explains every leaf."""
