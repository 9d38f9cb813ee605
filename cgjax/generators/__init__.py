"""Pretrained generators as staged networks, and the folders and names they load from."""
