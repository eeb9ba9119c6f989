"""Every durable write of the program: files that are replaced whole, directories with a manifest, journals and locks.

A file or directory is written beside its place under a `.tmp-` name, synced, renamed, and its parent is synced: whoever
looks, at any moment and after any crash, sees the old content or the new one. Every primitive passes through `disk.HOOK`,
so that a test can fail it or kill the process before it.
"""

from craft.store.errors import Busy as Busy
from craft.store.errors import Corrupt as Corrupt
from craft.store.file import append as append
from craft.store.file import sync as sync
from craft.store.file import write as write
from craft.store.file import write_json as write_json
from craft.store.journal import Journal as Journal
from craft.store.journal import read_journal as read_journal
from craft.store.litter import remove as remove
from craft.store.litter import sweep_litter as sweep_litter
from craft.store.lock import LOCK as LOCK
from craft.store.lock import lock as lock
from craft.store.manifest import MANIFEST as MANIFEST
from craft.store.manifest import sha256 as sha256
from craft.store.manifest import verify as verify
from craft.store.publish import Staged as Staged
from craft.store.publish import publish as publish
from craft.store.publish import stage as stage
