"""What an index has to live through: kills, power cuts, full disks, damage, and many readers.

Each test has a few trials in the ordinary suite and many under the marker `torture` (`make
torture`); `METAEMBED_TRIALS` sets how many. Each trial follows from its number.
"""
