from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lazypagesd.images import wire
from lazypagesd.images.framing import Magic
from lazypagesd.images.pstree import PID_MAX, Task
from lazypagesd.images.writer import ImageTask, frame, write_images
from tests.images.loading import load, plain_task, refusal, write_plain


def test_tasks_are_those_of_the_file_in_its_order(tmp_path: Path) -> None:
    """Each process comes with its pid, parent and threads."""
    child = replace(plain_task(9, pages_id=2), ppid=7, threads=(9, 10))
    write_images(tmp_path, [plain_task(7), child])
    with load(tmp_path) as checkpoint:
        assert checkpoint.tasks == (Task(7, 0, (7,)), Task(9, 7, (9, 10)))


def test_zombie_has_no_page_map(tmp_path: Path) -> None:
    """A dead process counts as one, and has nothing to serve."""
    write_images(tmp_path, [plain_task(7), ImageTask(8, ppid=7, zombie=True)])
    with load(tmp_path) as checkpoint:
        assert [task.zombie for task in checkpoint.tasks] == [False, True]
        with pytest.raises(KeyError):
            checkpoint.page_map(8)


def test_task_without_memory_is_refused_when_alive(tmp_path: Path) -> None:
    """Only a core that says dead explains that mm and pagemap are missing."""
    write_plain(tmp_path)
    (tmp_path / "mm-7.img").unlink()
    (tmp_path / "pagemap-7.img").unlink()
    core = wire.core_entry(tc=wire.task_core_entry(task_state=1))
    (tmp_path / "core-7.img").write_bytes(frame(Magic.CORE, [core]))
    assert str(refusal(tmp_path)).startswith("mm-7.img: missing")


@pytest.mark.parametrize("pid", [0, PID_MAX + 1])
def test_pid_is_refused_when_it_cannot_be(tmp_path: Path, pid: int) -> None:
    """A pid that no kernel gives is refused with its value."""
    write_images(tmp_path, [plain_task(7)])
    entry = wire.pstree_entry(pid=pid, ppid=0, pgid=1, sid=1)
    (tmp_path / "pstree.img").write_bytes(frame(Magic.PSTREE, [entry]))
    assert str(refusal(tmp_path)) == f"pstree.img at offset 8: pid {pid} cannot be"


def test_pid_is_refused_when_it_is_there_twice(tmp_path: Path) -> None:
    """Two processes of one pid could not be told apart."""
    write_images(tmp_path, [plain_task(7), plain_task(7)])
    error = refusal(tmp_path)
    assert error.file == "pstree.img"
    assert "pid 7 is there twice" in error.what


def test_tree_is_refused_when_nobody_is_in_it(tmp_path: Path) -> None:
    """A checkpoint of no process is none."""
    write_images(tmp_path, [])
    assert "no process in it" in refusal(tmp_path).what
