"""Capture without privileges: a user, network and mount namespace for one command (Linux).

Inside, every address is local, so nothing leaves: the kernel hands each SYN to a queue and each datagram to one socket, and both
belong to klinket outside. `inside` sets that up and becomes the command; `connects`, `datagrams` and `resolver` serve it.
"""
