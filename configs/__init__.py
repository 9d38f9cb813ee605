"""One file per experiment; `common.py` has the defaults and says what every leaf means."""
