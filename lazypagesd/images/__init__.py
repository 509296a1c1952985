"""CRIU's image files -> a flat page map.

Some facts about image files:

- A file is a row of records [u32 size][protobuf message], in host byte order, to the end of
  the file.  Before them stand two u32: one that all files share, and one for the type.  Only
  inventory.img has just its type; and when it says img_version 1, so have all the
  others.  pages-N.img is bare pages.
- pagemap-PID.img says what of a process is where, in entries sorted by address.  Bytes of those
  marked PRESENT lie in its pages file in the same order with nothing between them; a PARENT
  entry's bytes lie in the image that the symlink ``parent`` leads to, under the same pid, in
  pieces cut elsewhere, and possibly again in its parent.
- Entries are cut at the size of a pipe when they are dumped, and know nothing of VMAs: one VMA can
  have thousands, and one entry can lie across two VMAs.
- Whoever restores populates what is not marked LAZY, and registers whole VMAs: a page of them that
  no entry speaks of is zero.
- A file that is missing or empty in a parent means that the process was not in it.

Everything is checked when it is loaded: what would go wrong at a fault is an ImageError here.
"""
