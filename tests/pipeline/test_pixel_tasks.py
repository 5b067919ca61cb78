"""Pixel tasks: tiles, overlap, memory, and devices that are full or gone."""

import math
import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pixel_samples import BASIS, SOLVERS, poisson_pixels
from pixel_scans import made_job, measured_stage, run_stage, units
from scan_units import units_of

from hpcxrf.config.run import check_config
from hpcxrf.errors import DeviceLostError, FitError
from hpcxrf.fitting.pixels.fit import fit_pixels
from hpcxrf.formats.scan import RawScan
from hpcxrf.methods import METHODS
from hpcxrf.pipeline import plan
from hpcxrf.pipeline.blocks import TILE_BYTES, Block, block_shape, blocks_of, count_tasks, pixels_of, tile_shape
from hpcxrf.pipeline.device_memory import LEAST_BATCH, device_fault, device_memory
from hpcxrf.pipeline.memory import IDLE_WORKER_BYTES, memory_fault, stage_memory
from hpcxrf.pipeline.pixels import task as pixel_task
from hpcxrf.pipeline.pixels.device import Batches, Staging, batch_for, device_guard, first_batch, pixel_bytes
from hpcxrf.pipeline.pixels.tiles import TileCallbacks, assemble, run_overlapped, tiles_of
from hpcxrf.pipeline.plan import Plan, make_plan, memory_by_stage, memory_text
from hpcxrf.pipeline.workload import SCAN
from hpcxrf.results.store.maps import open_results
from hpcxrf.runner import worker
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.schema import spectra_layout

CPU = torch.device("cpu")
LINEAR = SOLVERS["linear"]


# --- tiles --------------------------------------------------------------------------------------


@given(
    shape=st.tuples(st.integers(1, 200), st.integers(1, 600)),
    chunk=st.sampled_from([(1, 1), (4, 16), (16, 128), (16, 512), (64, 256), (5, 7)]),
    pixel_bytes=st.sampled_from([64, 2048, 4096, 16384, 1 << 20]),
)
def test_tiles_hold_every_pixel_of_a_block_once(shape, chunk, pixel_bytes):
    seen = torch.zeros(shape, dtype=torch.int64)
    for block in blocks_of(shape):
        for tile in tiles_of(block, (1, *chunk, 8), pixel_bytes):
            assert block.y.start <= tile.y.start < tile.y.stop <= block.y.stop
            assert block.x.start <= tile.x.start < tile.x.stop <= block.x.stop
            seen[tile.y, tile.x] += 1
    assert bool((seen == 1).all())
    rows, columns = tile_shape(chunk, pixel_bytes)
    within = rows * columns * pixel_bytes <= TILE_BYTES
    assert within or (rows, columns) == (min(chunk[0], 64), min(chunk[1], 256))


def test_the_fits_of_tiles_are_the_fit_of_the_block():
    block = Block(y=slice(64, 70), x=slice(256, 266))
    tiles = tiles_of(block, (1, 4, 3, 8), TILE_BYTES // 12)
    assert len(tiles) > 4
    counts = poisson_pixels((2.0 * BASIS.coefficients).expand(60, -1))
    numbers = torch.arange(60).reshape(6, 10)
    every = torch.ones(60, dtype=torch.bool)

    def part(tile):
        y = slice(tile.y.start - 64, tile.y.stop - 64)
        x = slice(tile.x.start - 256, tile.x.stop - 256)
        which = numbers[y, x].flatten()
        return fit_pixels(counts[which], every[which], LINEAR)

    whole = fit_pixels(counts, every, LINEAR)
    found = assemble(block, [(tile, part(tile)) for tile in tiles])
    assert torch.equal(found.amplitude, whole.amplitude)
    assert torch.equal(found.status, whole.status)
    # Tiles of three pixels: products of few rows round otherwise.
    for name in ("sigma", "detection_limit", "deviance"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-5, atol=0.0)
    assert found.theta_shift is None


# --- reading, fitting and writing at once -------------------------------------------------------


def some_blocks(n):
    blocks = [Block(y=slice(i, i + 1), x=slice(0, 4)) for i in range(n)]
    return [(b, [replace(b, x=slice(0, 2)), replace(b, x=slice(2, 4))]) for b in blocks]


def fitted(tile):
    pixels = pixels_of(tile)
    counts = poisson_pixels(BASIS.coefficients.expand(pixels, -1))
    found = fit_pixels(counts, torch.ones(pixels, dtype=torch.bool), LINEAR)
    return lambda: found


def test_the_next_tile_is_read_while_one_is_fitted_and_no_more_are_held():
    lock, held, most, written = threading.Lock(), [0], [0], []
    reading = threading.Event()

    def read(tile):
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        reading.set()
        return tile

    def fit(tile):
        last = tile == order[-1]
        assert last or reading.wait(10.0), "nothing is read while a tile is fitted"
        reading.clear()
        with lock:
            held[0] -= 1
        return fitted(tile)

    blocks = some_blocks(4)
    order = [tile for _, tiles in blocks for tile in tiles]
    run_overlapped(blocks, TileCallbacks(read=read, fit=fit, write=lambda b, f: written.append(b)))
    assert written == [block for block, _ in blocks]
    assert most[0] <= 2


def test_a_fit_is_waited_for_beside_the_next_one():
    """The next tile is begun before the result of the one before is there."""
    begun = [threading.Event() for _ in range(4)]

    def fit(number):
        begun[number].set()
        found = fitted(order[number])

        def wait():
            assert number == 3 or begun[number // 2 * 2 + 1].wait(10.0)
            assert number >= 2 or begun[2].wait(10.0), "the next block is begun when this one has been waited for"
            return found()

        return wait

    blocks = some_blocks(2)
    order = [tile for _, tiles in blocks for tile in tiles]
    run_overlapped(blocks, TileCallbacks(read=order.index, fit=fit, write=lambda b, f: None))


@pytest.mark.parametrize("step", ["read", "fit", "write"])
def test_an_error_of_any_step_ends_the_task(step):
    def broken(*given):
        raise OSError(f"{step} failed")

    steps = {"read": lambda tile: tile, "fit": fitted, "write": lambda block, fit: None}
    with pytest.raises(OSError, match=f"{step} failed"):
        run_overlapped(some_blocks(3), TileCallbacks(**(steps | {step: broken})))


# --- tasks --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A scan of two by two blocks, fitted in tasks of one block."""
    job = made_job(tmp_path_factory.mktemp("small"), (1, 80, 300, 256), pixels={"blocks_per_task": 1})
    run_stage(job, "integrated")
    return job, run_stage(job, "pixels")


def test_tasks_and_threads_change_no_bit(small):
    job, records = small
    assert len(records) == 4
    one = replace(job, config=replace(job.config, pixels=replace(job.config.pixels, blocks_per_task=4)))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    (whole,) = run_stage(one, "pixels")
    torch.set_num_threads(before)
    apart = {key: value for record in records for key, value in record.checksums.items()}
    assert whole.checksums == apart
    assert len(apart) == 4 * 6


def test_a_record_tells_how_long_each_step_took(small):
    for record in small[1]:
        assert min(record.read_s, record.fit_s, record.write_s) > 0.0
        assert record.wall_s >= max(record.read_s, record.fit_s, record.write_s)
        assert record.bytes_read == record.pixels * 256 * 2


def test_amplitudes_of_the_pixels_add_up_to_those_of_the_scan(small):
    job, _ = small
    tree = open_results(RunDir(path=job.run_dir).results_store(job.dataset_id))
    summed = tree["maps"].amplitude.sum(("y", "x"))[0]
    spectrum = tree["spectrum"]
    pull = (summed - spectrum.amplitude[0]) / spectrum.sigma[0]
    assert float(abs(pull).max()) < 2.0


@pytest.mark.parametrize("method", ["linear", "nnls", "poisson", "nonlinear", "full"])
@pytest.mark.parametrize("shape", [(500, 600), (2000, 2000), (64, 64), (1, 7)])
def test_a_scan_is_cut_for_the_cores_of_a_large_node_but_not_into_less_than_is_worth_a_task(method, shape):
    for n_detectors in (1, 5):
        tasks = count_tasks(shape, 2048, method, n_detectors=n_detectors)
        seconds = math.prod(shape) * 2048 / METHODS[method].cpu_rate / tasks
        assert tasks == 1 or 0.08 < seconds < 15.0
        assert seconds < 0.2 or tasks * n_detectors >= 128
        blocks = blocks_of(shape, block_shape(shape, 2048, method, n_detectors))
        smallest = min(pixels_of(block) for block in blocks)
        assert len(blocks) >= tasks or smallest <= 64
    # The true model is slower there than by a core's kernel.
    if METHODS[method].gpu_rate >= METHODS[method].cpu_rate:
        assert count_tasks(shape, 2048, method, device="cuda") <= count_tasks(shape, 2048, method)


def test_blocks_are_whole_chunks_of_the_counts_unless_a_pixel_takes_a_millisecond():
    chunks = spectra_layout((1, 1000, 1000, 2048), 2).chunks
    for method in ("linear", "nnls", "poisson", "nonlinear"):
        rows, columns = block_shape((1000, 1000), 2048, method)
        assert (rows % chunks[1], columns % chunks[2]) == (0, 0)


def test_units_are_those_of_the_task_size(tmp_path):
    job = made_job(tmp_path, (1, 200, 300, 64), ingest=False)
    n_blocks = len(blocks_of((200, 300), block_shape((200, 300), 64, "linear")))
    covered = sorted(i for u in units(job, "pixels") for i in range(u.work.first, u.work.stop))
    assert covered == list(range(n_blocks))
    assert next(u.task for u in units_of(job)) == "ingest"


def test_results_with_other_blocks_are_fitted_again(small):
    job, _ = small
    integrated = next(unit for unit in SCAN.units_of(job) if unit.stage == "integrated")
    assert SCAN.is_there(job, integrated)
    slow = replace(job, config=replace(job.config, pixels=replace(job.config.pixels, method="full")))
    assert not SCAN.is_there(slow, integrated)


# --- a device that is full, or gone -------------------------------------------------------------


def test_a_full_device_is_given_half_as_many_pixels_and_it_is_told():
    sizes = []

    def fit(size):
        sizes.append(size)
        if size > 1024:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return "fitted"

    batches = Batches(device=CPU, size=4096)
    assert batches.run(fit) == "fitted"
    assert sizes == [4096, 2048, 1024]
    assert [f"{n} pixels" in note.text for n, note in zip((4096, 2048), batches.notes, strict=True)]
    assert batches.run(fit) == "fitted"
    assert sizes == [4096, 2048, 1024, 1024]


def test_a_device_without_room_for_the_least_batch_is_an_error_that_says_so():
    def fit(size):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(FitError, match=f"full with {LEAST_BATCH} pixels"):
        Batches(device=torch.device("cuda:0"), size=LEAST_BATCH).run(fit)


def test_smaller_batches_change_nothing_that_counts():
    counts = poisson_pixels((2.0 * BASIS.coefficients).expand(3000, -1))
    every = torch.ones(3000, dtype=torch.bool)
    for method in ("linear", "nnls", "poisson"):
        whole = fit_pixels(counts, every, SOLVERS[method])
        parts = fit_pixels(counts, every, SOLVERS[method], batch=512)
        off = (parts.amplitude - whole.amplitude).abs() / whole.sigma
        assert float(off.max()) < 1e-4


@given(free=st.integers(0, 200 << 30), needed=st.integers(1000, 1 << 22))
def test_batches_are_powers_of_two_within_half_of_the_free_memory(free, needed):
    batch = batch_for(free, needed)
    assert batch & (batch - 1) == 0
    assert LEAST_BATCH <= batch <= 16384
    assert batch == LEAST_BATCH or batch * needed <= free / 2


def test_the_cpu_has_no_batch_of_its_own():
    assert first_batch(CPU, LINEAR, "linear") is None
    assert pixel_bytes(SOLVERS["poisson"], "poisson") > pixel_bytes(LINEAR, "linear") > 4 * 640
    # Columns and their changes: more than the columns alone.
    assert pixel_bytes(SOLVERS["nonlinear"], "nonlinear") > pixel_bytes(LINEAR, "nonlinear")


def test_staging_on_the_cpu_copies_nothing():
    counts = torch.zeros((4, 8), dtype=torch.uint16).numpy()
    tile = Staging(device=CPU).put(counts, torch.ones(4, dtype=torch.bool).numpy())
    counts[0, 0] = 7
    assert int(tile.counts[0, 0]) == 7
    assert tile.ready is None


def lost(*given, **options):
    raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCompile with ...")


def test_an_error_of_the_device_names_it():
    with (
        pytest.raises(DeviceLostError, match=r"cuda:0.*unspecified launch failure"),
        device_guard(torch.device("cuda:0")),
    ):
        lost()


def test_a_task_whose_device_vanishes_writes_nothing_and_fails(tmp_path, monkeypatch):
    job = made_job(tmp_path, (1, 4, 8, 256))
    run_stage(job, "integrated")
    monkeypatch.setattr(pixel_task, "fit_pixels", lost)
    with pytest.raises(DeviceLostError, match="the device failed"):
        run_stage(job, "pixels")
    tree = open_results(RunDir(path=job.run_dir).results_store(job.dataset_id))
    assert int(tree["maps"].status.max()) == 0
    assert bool(tree["maps"].amplitude.isnull().all())
    assert not list((job.run_dir / worker.ATTEMPTS).glob("*"))


class _EndedError(Exception):
    """In the place of the end of the process."""


def test_a_worker_whose_device_is_lost_ends_and_after_three_times_the_task_says_why(tmp_path, monkeypatch):
    job = made_job(tmp_path, (1, 4, 8, 256))
    run_stage(job, "integrated")
    with monkeypatch.context() as patch:
        patch.setattr(pixel_task, "fit_pixels", lost)
        patch.setattr(worker, "is_restarted", lambda: True)

        def end():
            # What the process leaves behind when it ends at once.
            markers = {p: p.read_text() for p in (job.run_dir / worker.ATTEMPTS).glob("*")}
            raise _EndedError(markers)

        patch.setattr(worker, "_end_process", end)
        for n in range(3):
            with pytest.raises(_EndedError) as ended:
                run_stage(job, "pixels")
            for path, text in ended.value.args[0].items():
                path.write_text(text)
            assert len(ended.value.args[0]) == n + 1
        with pytest.raises(FitError, match=r"ended its worker 3 times.*unspecified launch failure"):
            run_stage(job, "pixels")
    worker.forget_attempts(job.run_dir)
    (record,) = run_stage(job, "pixels")
    assert record.pixels == 32


def test_this_process_is_no_worker_that_would_start_again():
    assert not worker.is_restarted()


# --- memory -------------------------------------------------------------------------------------


def predicted_mb(job):
    memory = stage_memory(job, rows_per_read=8, source_itemsize=2)
    return {stage: needed / 2**20 for stage, needed in memory.items()}


@pytest.mark.slow
def test_a_cube_of_256_mb_takes_less_than_100_mb_above_an_idle_worker(tmp_path):
    job = made_job(tmp_path, (1, 256, 256, 2048))
    for stage in ("integrated", "pixels"):
        found = measured_stage(job, stage)
        above = found["peak_mb"] - found["idle_mb"]
        assert above < 100.0, stage
        assert above < predicted_mb(job)[stage], stage


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_cube_of_8_gb_is_fitted_under_a_limit_of_2_gb(tmp_path):
    job = made_job(tmp_path, (1, 1024, 2048, 2048), ingest=False, regions={"find": ["phases"]})
    for stage in ("ingest", "integrated", "pixels", "regions", "finalise"):
        found = measured_stage(job, stage, limit_bytes=2 << 30)
        assert found["peak_mb"] < 2000.0, stage
        assert found["peak_mb"] - found["idle_mb"] < predicted_mb(job)[stage], stage


def test_regions_are_what_grows_with_the_scan(tmp_path):
    small, large = (
        stage_memory(
            made_job(tmp_path / str(n), (1, n, 1000, 2048), ingest=False, regions={"find": ["phases"]}),
            rows_per_read=1,
            source_itemsize=2,
        )
        for n in (200, 20_000)
    )
    assert large["regions"] > 10 * small["regions"]
    assert all(large[s] <= 1.5 * small[s] for s in ("integrated", "pixels", "finalise"))


def test_what_cannot_fit_is_refused_with_both_numbers():
    assert memory_fault({"ingest": 10 << 20, "pixels": 3 << 30}, 4 << 30) is None
    fault = memory_fault({"ingest": 10 << 20, "pixels": 4 << 30}, 4 << 30)
    assert fault is not None
    assert "stage pixels needs 4.71 GB in one worker, a worker has 4.29 GB" in fault


def test_the_memory_of_a_gpu_follows_the_channels_and_is_refused_with_both_numbers(tmp_path):
    few, many = (device_memory(made_job(tmp_path / str(n), (1, 64, 64, n), ingest=False)) for n in (1024, 4096))
    # Two tiles of 16384 spectra of 4 bytes, and 4 copies in float32 of those that are fitted at a time.
    channels = 4096 - 1024
    assert many.least - few.least == 4 * channels * (2 * 16384 + 4 * 256)
    assert many.most - few.most == 4 * channels * (2 * 16384 + 4 * 16384)
    assert device_fault(many, many.least) is None
    fault = device_fault(many, 1_000_000_000)
    assert fault is not None
    assert f"need {many.least / 1e9:.2f} GB of a GPU with 256 at a time, a GPU has 1.00 GB" in fault


def test_the_memory_of_a_gpu_counts_what_a_task_counts(tmp_path):
    """The numbers that the batch is chosen by are those of the plan, which takes all channels and elements."""
    job = made_job(tmp_path, (1, 64, 64, 2048), ingest=False)
    memory = device_memory(job)
    per_pixel = (memory.most - memory.least) / (16384 - LEAST_BATCH)
    assert per_pixel > pixel_bytes(LINEAR, job.config.pixels.method)


def test_a_plan_refuses_a_scan_too_large_for_its_workers(tmp_path, monkeypatch):
    def opened(path, options):
        return RawScan(
            name="scan",
            format="simulated",
            files=(path,),
            shape=(1, 30_000, 30_000, 64),
            dtype=torch.zeros(1, dtype=torch.uint16).numpy().dtype,
            rows_per_read=1,
            read_counts=lambda rows: None,
            read_scalars=lambda: None,
        )

    source = tmp_path / "scan.raw"
    source.write_bytes(b"")
    monkeypatch.setattr(plan, "why_left_out", lambda path, candidates: None)
    monkeypatch.setattr("hpcxrf.pipeline.opening.open_scan", opened)
    config = check_config(
        {"input": {"files": [str(source)]}, "sample": {"elements": ["Fe"]}, "fit": {"override": "none"}}, "test"
    )
    found = make_plan(config, tmp_path / "run", worker_bytes=IDLE_WORKER_BYTES + (1 << 30))
    assert not found.jobs
    assert "stage regions needs" in found.refusals[0].reason
    assert "a worker has 1.49 GB" in found.refusals[0].reason
    allowed = make_plan(config, tmp_path / "run")
    assert memory_by_stage(allowed)["regions"] > 64 << 30


def test_the_memory_of_a_plan_is_told_by_stage(tmp_path):
    job = made_job(tmp_path, (1, 4, 8, 64), ingest=False)
    job = replace(job, memory_bytes=(("pixels", 1 << 20), ("regions", 1 << 50)))
    told = memory_text(Plan(jobs=(job,), refusals=(), notes=()))
    assert told.startswith("of a worker at most 400 MB idle")
    assert "pixels 1, regions 1073741824" in told
