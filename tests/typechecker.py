"""What checks annotations at run time: beartype, an int being a float as in all type checkers."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
