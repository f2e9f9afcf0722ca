"""Laws of who computes: the numbers of one process, whoever made them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Executor, Future
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
import pytest
import toy
import xarray as xr

from deeplimits import checks, cli, sources
from deeplimits.experiments import executors, registry, sending

TESTS = Path(__file__).parent
MANY = 300  # pieces under way
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(sources.ROOT)]),
    "JAX_PLATFORMS": "",  # the run says which
}


def computed(folder):
    """How often each piece was begun."""
    return Counter(
        p.name.split("-")[0] for p in Path(folder).iterdir() if "-" in p.name
    )


def until(found, process=None):
    """Wait for what must come; a test's own time limit ends it where it does not."""
    while not (value := found()):
        assert process is None or process.poll() is None, "it ended before"
        time.sleep(0.01)
    return value


def kept(scratch):
    return {p.name.split("--")[1] for p in Path(scratch).glob("sums--*.nc")} - {
        "shared.nc"
    }


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture
def whole(tmp_path):
    """What one process computes."""
    (tmp_path / "serial").mkdir()
    experiment = toy.sums(tmp_path / "serial")
    return experiment.run(experiment.preset("book"), key=jr.key(5))


def killing(log, then=lambda: None):
    """Kill the process that waits for it, as soon as it does."""

    def kill():
        pid = int(
            until(lambda: (log / "victim").is_file() and (log / "victim").read_text())
        )
        then()
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def same(found, whole):
    assert found["sums"].dtype == whole["sums"].dtype == "float64"
    xr.testing.assert_identical(found.drop_attrs(), whole.drop_attrs())


# ----------------------------------------------------------------- processes


def test_processes_compute_what_one_computes(log, whole, tmp_path):
    """In the precision of the piece, whatever the process around it has; and an error
    of one piece is raised as it is, after what ran beside it is kept."""
    good, bad = toy.sums(log), toy.sums(log, pieces=3, fails=1)
    with executors.processes(2) as executor, jax.enable_x64(False):
        found = good.run(good.preset("book"), key=jr.key(5), executor=executor)
        assert found.attrs["identity"]
        same(found, whole)
        assert computed(log) == {"shared": 1} | {f"piece{i}": 1 for i in range(8)}
        with pytest.raises(ValueError, match=r"^place 1 cannot be computed\.$"):
            bad.run(
                bad.preset("book"), key=jr.key(5), scratch=tmp_path, executor=executor
            )
        assert "0" in kept(tmp_path)
        assert "1" not in kept(tmp_path)


def test_a_killed_process_is_said_in_a_line_and_what_is_there_is_kept(
    log, whole, tmp_path
):
    experiment = toy.sums(log, waits=4)
    run = {"config": experiment.preset("book"), "key": jr.key(5)}
    run["scratch"] = scratch = tmp_path / "scratch"
    killer = killing(log, lambda: until(lambda: len(kept(scratch)) == 7))
    with pytest.raises(ChildProcessError, match="ended from outside") as error:
        with executors.processes(2) as executor:
            experiment.run(**run, executor=executor)
    killer.join()
    assert "\n" not in str(error.value)
    before = computed(log)
    same(experiment.run(**run), whole)
    assert computed(log) - before == {"piece4": 1}


def test_processes_end_with_the_one_that_began_them(log, tmp_path):
    code = """
import sys, jax.random as jr, toy
from deeplimits.experiments import executors
if __name__ == "__main__":
    with executors.processes(1) as executor:
        found = toy.sums(sys.argv[1], waits=0)
        found.run(found.preset("book"), key=jr.key(5), executor=executor)
"""
    (tmp_path / "run.py").write_text(code)
    command = [sys.executable, str(tmp_path / "run.py"), str(log)]
    process = subprocess.Popen(command, env=ENVIRONMENT)
    worker = int(
        until(
            lambda: (log / "victim").is_file() and (log / "victim").read_text(), process
        )
    )
    process.kill()
    process.wait()
    until(lambda: not alive(worker))


def alive(pid):
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"  # nobody may be there to collect it
    return False


# ----------------------------------------------------------------- who may compute


def toys_piece(**changes):
    with jax.default_matmul_precision("float32"):
        sent = sending.pack("deeplimits.checks", dict, [("x", 1.0)])
    return sent._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": "0123"}, r"a worker runs other code \(\w{16}, not 0123\)"),
        ({"jax": "0.4.1"}, "a worker runs other JAX .*, not 0.4.1"),
        ({"platform": "tpu"}, "a worker computes on .*pu, this run on tpu"),
    ],
)
def test_a_worker_with_other_code_is_refused(changes, message):
    assert sending.unpack(toys_piece())["x"] == 1.0
    with pytest.raises(ValueError, match=message) as error:
        # not even read: names in it may mean something else there
        sending.unpack(toys_piece(**changes, payload=b"nothing"))
    assert "\n" not in str(error.value)


def drawn():
    return {"bits": ("place", jr.bits(jr.key(0), (4,)))}


@pytest.mark.parametrize("partitionable", [True, False])
def test_a_piece_draws_where_it_is_computed_as_it_would_here(partitionable):
    with jax.threefry_partitionable(partitionable):
        sent, here = sending.pack("deeplimits.checks", drawn), drawn()["bits"][1]
    np.testing.assert_array_equal(sending.unpack(sent)["bits"], here)
    with jax.threefry_partitionable(not partitionable):
        assert (drawn()["bits"][1] != here).any()
        np.testing.assert_array_equal(sending.unpack(sent)["bits"], here)


def test_a_worker_whose_files_were_edited_since_is_refused(monkeypatch):
    sending.unpack(toys_piece())
    sending._code.cache_clear()
    monkeypatch.setattr(sources, "tree", lambda: "another")
    with pytest.raises(ValueError, match="runs other code \\(edited"):
        sending.unpack(toys_piece())
    sending._code.cache_clear()


def test_an_error_that_only_a_worker_knows_comes_back_as_text():
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__("odd")

    assert isinstance(sending._portable(Odd(1, 2)), RuntimeError)
    assert type(sending._portable(UnicodeError("text"))) is ValueError


def test_what_was_given_up_is_not_waited_for():
    """A future that is cancelled counts as done once its executor says so, which that
    of Dask does not when its scheduler is lost."""

    class Lost(Executor):
        def submit(self, *args):
            submitted.append(future := Future())
            if len(submitted) == 2:
                submitted[0].set_exception(ConnectionError("lost"))
            return future

    submitted = []
    with pytest.raises(ConnectionError, match="lost"):
        list(sending.gather(Lost(), enumerate([toys_piece()] * 3)))
    assert [f.cancelled() for f in submitted] == [False, True, True]


def test_a_count_of_workers_is_positive():
    for count in (0, -1):
        with pytest.raises(ValueError, match="workers must be a whole number"):
            with executors.processes(count):
                pass


def test_more_workers_than_the_memory_holds_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(registry._REGISTERED, "toy/sums", toy.sums(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "toy/sums", "--workers", "1000000"]) == 2
    line = capsys.readouterr().err
    assert "0.3 GB of memory" in line
    assert line.endswith("got 1000000.\n")
    assert line.count("\n") == 1
    monkeypatch.setattr(checks, "memory", lambda: 10**9)
    with executors.processes(3):
        pass
    with pytest.raises(ValueError, match=r"has room for 3 workers, .*: got 4\."):
        with executors.processes(4):
            pass
    monkeypatch.setattr(checks, "memory", lambda: 10**8)
    with executors.processes(1):
        pass


# ----------------------------------------------------------------- a cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two workers, processes of their own: its address, and itself."""
    folder = tmp_path_factory.mktemp("cluster")
    place = folder / "scheduler.json"
    common = ["--host=127.0.0.1", "--no-dashboard"]
    with contextlib.ExitStack() as stack:

        def start(program, *options):
            command = [sys.executable, "-m", f"distributed.cli.{program}", *common]
            process = subprocess.Popen(
                [*command, *options],
                env=ENVIRONMENT,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        scheduler = start("dask_scheduler", "--port=0", f"--scheduler-file={place}")
        # there, and written
        text = until(lambda: place.is_file() and place.read_text(), scheduler)
        address = json.loads(text)["address"]
        for _ in range(2):
            start("dask_worker", address, "--nthreads=1", "--no-nanny")
        yield address, scheduler


def test_a_cluster_loses_a_worker_and_then_its_scheduler(cluster, log, whole, tmp_path):
    """Bitwise the same numbers, nothing that was kept computed twice; and without a
    scheduler one line, and a later run that goes on."""
    address, scheduler = cluster
    experiment = toy.sums(log, waits=3)
    scratch, written = tmp_path / "scratch", set()
    killer = killing(log, lambda: written.update(kept(scratch)))
    with executors.cluster(address) as executor:
        found = experiment.run(
            experiment.preset("book"), key=jr.key(5), scratch=scratch, executor=executor
        )
    killer.join()
    same(found, whole)
    count = computed(log)
    assert count["piece3"] == 2
    assert all(count[f"piece{i}"] == 1 for i in written)

    bad = toy.sums(log, pieces=3, fails=1)
    with pytest.raises(ValueError, match=r"^place 1 cannot be computed\.$"):
        with executors.cluster(address) as executor:
            bad.run(bad.preset("book"), key=jr.key(5), executor=executor)

    (tmp_path / "second").mkdir()
    # many: Dask complains of each that is lost, as the process ends
    fields = f"{str(tmp_path / 'second')!r}, pieces={MANY}, waits=3"
    code = f"""import sys, toy
from deeplimits import cli
from deeplimits.experiments import executors, registry
executors.ANSWER = 2
registry._REGISTERED["toy/sums"] = toy.sums({fields})
sys.exit(cli.main(["run", "toy/sums", *sys.argv[1:]]))"""
    alone = [sys.executable, "-c", code]
    there = {"env": ENVIRONMENT, "cwd": tmp_path, "stderr": subprocess.PIPE}
    run = subprocess.Popen([*alone, "--scheduler", address], **there)
    until((tmp_path / "second" / "victim").is_file, run)
    scheduler.kill()
    line = run.communicate()[1].decode().rsplit("\r", 1)[-1]
    assert (run.returncode, line.count("\n")) == (2, 1), line
    assert line.startswith(f"deeplimits: the scheduler {address} is lost")
    before = computed(tmp_path / "second")
    pieces = len(kept(*(tmp_path / "runs" / ".unfinished").iterdir()))
    subprocess.run(alone, check=True, **there)
    assert sum((computed(tmp_path / "second") - before).values()) == MANY - pieces


def test_where_no_scheduler_answers(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(registry._REGISTERED, "toy/sums", toy.sums(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executors, "ANSWER", 0.2)
    assert cli.main(["run", "toy/sums", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    line = capsys.readouterr().err
    assert "no scheduler answers at tcp://127.0.0.1:1" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_accepts_and_is_no_scheduler(said, monkeypatch):
    """One that says nothing, and one that says something else."""
    monkeypatch.setattr(executors, "ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, held = server.getsockname()[1], []

        def answer():
            with contextlib.suppress(OSError):  # the server has ended
                while True:
                    held.append(server.accept()[0])
                    held[-1].sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(ConnectionError, match=r"^no scheduler answers at .*: \w"):
            with executors.cluster(f"tcp://127.0.0.1:{port}"):
                pass
        assert time.monotonic() - begun < 20


def test_a_cluster_behind_tls_needs_certificates():
    with pytest.raises(ConnectionError, match=r"no scheduler answers at tls://.*TLS"):
        with executors.cluster("tls://127.0.0.1:1"):
            pass


@pytest.mark.parametrize(
    "address", ["nonsense", "foo://x:1", "tcp://x:y", "inproc://x"]
)
def test_what_is_no_address_of_a_scheduler_is_refused_at_once(address):
    """Before there is a client, which would complain of itself as it goes."""
    code = "import sys\nfrom deeplimits import cli\nsys.exit(cli.main(sys.argv[1:]))"
    words = ["run", "marion2025/histogram", "--profile=smoke", "--scheduler", address]
    command = [sys.executable, "-c", code, *words]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert run.returncode == 2
    assert f"{address} is no address of a scheduler" in run.stderr
    assert run.stderr.count("\n") == 1
