"""What an index has read of its folder: files, the digest of every passage, thumbnails.

The ledger lies beside the index and is not part of its format. What changes or copies an index as
a whole, such as `repair`, has to keep the two in agreement, and is here.
"""

from metaembed.ledger.copies import merge, shrink
from metaembed.ledger.ledger import FileState, Ledger
from metaembed.ledger.upkeep import Repaired, repair, verify

__all__ = ["FileState", "Ledger", "Repaired", "merge", "repair", "shrink", "verify"]
