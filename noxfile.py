"""The project's checks, one session each: ``nox -s NAME``, or ``nox -l`` for the list.

Each session installs the checkout with its dev extra. With ``--no-venv`` nothing is installed: the sessions then use
the environment that nox runs from, as .ci/run does.
"""

import shutil
import tarfile
from pathlib import Path

import nox

MERMAID = "11.17.2"
"""One file of it is used, and nothing that it depends on."""

nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "imports", "model", "crosshair", "docs", "tests"]


SITE = ["python", "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "html", "-c", "docs/site", ".", "build/docs"]


def install(session: nox.Session) -> None:
    if session.venv_backend != "none":
        session.install("-q", "-e", ".[dev]")


def run(session: nox.Session, *words: str) -> None:
    """Run Python with these words, and then with the arguments after --."""
    install(session)
    session.run("python", *words, *session.posargs)


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run pytest on each supported Python that is found. Arguments after -- are pytest's."""
    run(session, "-m", "pytest", "-q")


COMPILED = (
    "tests/test_core.py",
    "tests/test_entry.py",
    "tests/test_drivers.py",
    "tests/test_threads.py",
    "tests/test_aio.py",
    "tests/test_anyio.py",
    "tests/test_gevent.py",
    "tests/test_interrupts.py",
    "tests/test_objects.py",
    "tests/test_once.py",
    "tests/test_owners.py",
    "tests/bench/test_interrupts_bench.py",
    "tests/testing/test_suite.py",
    "tests/trace/test_steps.py",
    "tests/verify/test_compiled.py",
)
"""What is run on the compiled wheel."""


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"])
def compiled(session: nox.Session) -> None:
    """Build the compiled wheel on each Python that is found, and test it; arguments after -- are pytest's."""
    if session.venv_backend == "none":
        session.error("it installs the wheel in an environment of its own: call it without --no-venv")
    folder = Path(session.create_tmp()).resolve() / "compiled"
    # create_tmp puts it below this pyproject.toml, by which the pytests that tests begin would then go.
    del session.env["TMPDIR"]
    shutil.rmtree(folder, ignore_errors=True)
    session.install("-q", "build")
    session.run("python", "-m", "build", "-q", "--sdist", "-o", str(folder), ".")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    tree = folder / sdist.name.removesuffix(".tar.gz")
    switch = {"HATCH_BUILD_HOOK_ENABLE_MYPYC": "1"}
    session.run("python", "-m", "build", "-q", "--wheel", "-o", str(folder), str(tree), env=switch)
    (wheel,) = folder.glob("*.whl")
    session.install("-q", f"kmutex[dev,bench] @ {wheel.as_uri()}")
    # Where the environment was there already, with a wheel of the same version.
    session.install("-q", "--force-reinstall", "--no-deps", str(wheel))
    # From here on nothing but the wheel can be imported.
    shutil.rmtree(tree / "kmutex")
    shutil.rmtree(tree / "model")
    session.chdir(tree)
    session.run("python", "-c", "import kmutex; print(kmutex.__file__); assert kmutex.compiled")
    session.run("python", "-m", "pytest", "-q", "-n0", "-m", "", *COMPILED, *session.posargs)
    for locker in ("KeyedMutex", "AsyncKeyedMutex"):
        session.run("kmutex", "verify", f"kmutex:{locker}")
    session.log(
        f"to measure it: cd {tree}; {session.bin}/python benchmarks/locks/run.py, or benchmarks/interrupts/run.py"
    )


FREE_THREADED = """\
no free-threaded Python is on the path (python3.14t, python3.13t). On Debian, with a deb-src line of forky or sid (for
python3.13: trixie):
    apt-get install dpkg-dev gcc make pkgconf libffi-dev libssl-dev zlib1g-dev
    apt-get source python3.14 && cd python3.14-3.14.*
    ./configure --disable-gil --disable-test-modules --prefix=$HOME/python3.14t && make -j2 && make install
and put $HOME/python3.14t/bin on the path. It takes some ten minutes."""
THREADED_TESTS = (
    "tests/test_core.py",
    "tests/test_drivers.py",
    "tests/test_interrupts.py",
    "tests/test_stripes.py",
    "tests/test_threads.py",
    "tests/test_aio.py",
    "tests/test_free_threads.py",
)


BOUNDED = ("check", "postgres", "anyio", "proof", "docs")
"""The extras whose dependencies have a lower bound; what the others name is pinned, or only tests need it."""
LOWEST = (
    "tests/test_anyio.py",
    "tests/test_help.py",
    "tests/docs/test_samples.py::test_a_timeline_is_what_its_replay_shows",
    "tests/picture",
    "tests/postgres/test_tokens.py",
    "tests/proof/test_command.py",
    "tests/testing",
    "tests/trace/test_command.py",
    "tests/verify/test_options.py",
    "tests/verify/test_report.py",
)
"""What is run on them: each dependency at work, in two minutes."""


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Install the oldest dependencies that pyproject.toml allows, and run a quick part of the tests.

    The other sessions install the newest. Needs PostgreSQL, and checks the completion of the shells that are here.
    """
    if session.venv_backend == "none":
        session.error("it installs old versions in an environment of its own: call it without --no-venv")
    extras = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
    bounds = [line.replace(">=", "==") for extra in BOUNDED for line in extras[extra] if not line.startswith("kmutex[")]
    tools = ("jsonschema", "pytest==8", "pytest-timeout", "pytest-xdist", "pyyaml", "sybil", "trio")
    session.install("-q", "-e", f".[{','.join(BOUNDED)}]", *bounds, *tools)
    session.run("python", "-m", "pip", "list")
    session.run("python", "-m", "pytest", "-q", "-n0", *LOWEST, *session.posargs)
    session.run("kmutex", "prove", "--solver", "z3", "--quiet")
    session.run(*SITE)


@nox.session(venv_backend="none")
def freethreaded(session: nox.Session) -> None:
    """Test the drivers on a free-threaded Python, with storms, and measure; arguments after -- are pytest's."""
    python = shutil.which("python3.14t") or shutil.which("python3.13t")
    if python is None:
        session.error(FREE_THREADED)
    folder = Path(session.create_tmp()).resolve() / "freethreaded"
    session.run(python, "-m", "venv", str(folder), external=True)
    inside = str(folder / "bin" / "python")
    # Not all of dev has wheels for it.
    needed = ("anyio", "hypothesis", "pytest", "pytest-timeout", "pytest-xdist", "rich", "trio")
    # The newest hypothesis has a part in Rust, and a wheel of it for some interpreters only.
    wheels = ("--only-binary", "hypothesis")
    session.run(inside, "-m", "pip", "install", "-q", *wheels, "-e", ".", *needed, external=True)
    session.run(inside, "-m", "pytest", "-q", "-n0", *THREADED_TESTS, *session.posargs, external=True)
    session.run(inside, "benchmarks/locks/scaling.py", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy, strictly."""
    install(session)
    session.run("mypy")
    session.run("mypy", "examples/pull")
    session.run("python", "-m", "mypy", "docs/site")
    # Each of them has a run.py.
    for folder in ("locks", "interrupts", "search"):
        session.run("mypy", f"benchmarks/{folder}")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def imports(session: nox.Session) -> None:
    """Check who imports whom with import-linter."""
    install(session)
    session.run("lint-imports", "--no-logo")


@nox.session
def model(session: nox.Session) -> None:
    """Explore the model and every broken one."""
    install(session)
    session.run("python", "-m", "kmutex_model", *session.posargs)
    session.run("python", "-m", "kmutex_model.engine")


@nox.session
def vectors(session: nox.Session) -> None:
    """Whether specs/vectors.json is what the model gives; ``-- --write`` writes it."""
    run(session, "-m", "kmutex.conform.vectors")


@nox.session(name="vectors-release")
def vectors_release(session: nox.Session) -> None:
    """The vectors as an archive of their own, in build/vectors; ``-- --since ARCHIVE`` checks its version."""
    install(session)
    folder = Path("build/vectors")
    folder.mkdir(parents=True, exist_ok=True)
    session.run("python", "-m", "kmutex.conform.release", str(folder), *session.posargs)


@nox.session
def tlc(session: nox.Session) -> None:
    """Check specs/KMutex.tla with TLC, and its counts against the model's. Needs Java."""
    run(session, "tests/tlc/run_tlc.py")


@nox.session
def crosshair(session: nox.Session) -> None:
    """Confirm the contracts of kmutex._entry, and refute a twin of each."""
    run(session, "-m", "pytest", "-q", "-n0", "tests/contracts")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site into build/docs; a warning is an error."""
    install(session)
    session.run(*SITE, *session.posargs)


@nox.session
def long(session: nox.Session) -> None:
    """Judge the rest of the corpus, run the samples that search, and tie every broken model to the proof."""
    run(session, "-m", "pytest", "-q", "-m", "long", "tests")


@nox.session
def site(session: nox.Session) -> None:
    """Build the documentation site, and look at its links, its reference and what it loads."""
    run(session, "-m", "pytest", "-q", "-m", "site", "tests/docs")


@nox.session
def browsers(session: nox.Session) -> None:
    """Open the pages and pictures in Chromium. Needs Chromium and its driver."""
    run(session, "-m", "pytest", "-q", "-m", "browser", "tests")


@nox.session(python="3.13")
def peers(session: nox.Session) -> None:
    """Verify other people's locks, and hold docs/peers.md and docs/conform-peers.md to the outcome."""
    if session.venv_backend != "none":
        session.install("-q", "-e", ".[dev,peers]")
    session.run("python", "-m", "pytest", "-q", "-m", "peers", "tests/verify", "tests/conform", *session.posargs)


@nox.session
def registry(session: nox.Session) -> None:
    """Pull from a real registry. Needs Debian's docker-registry."""
    run(session, "-m", "pytest", "-q", "-m", "registry", "tests/pull")


@nox.session
def valgrind(session: nox.Session) -> None:
    """Count instructions of a lock and an unlock. Needs valgrind."""
    run(session, "-m", "pytest", "-q", "-m", "valgrind", "tests/bench")


@nox.session
def mermaid(session: nox.Session) -> None:
    """Draw pictures with Mermaid itself, which comes from npm. Needs Chromium."""
    install(session)
    folder = Path(session.create_tmp()).resolve()
    session.run("npm", "pack", "--silent", f"mermaid@{MERMAID}", "--pack-destination", str(folder), external=True)
    with tarfile.open(folder / f"mermaid-{MERMAID}.tgz") as package:
        content = package.extractfile("package/dist/mermaid.min.js")
        if content is None:
            session.error("the package has no dist/mermaid.min.js")
        (folder / "mermaid.min.js").write_bytes(content.read())
    variables = {"KMUTEX_MERMAID": str(folder / "mermaid.min.js")}
    session.run(
        "python", "-m", "pytest", "-q", "-m", "", "tests/picture/test_mermaid.py", *session.posargs, env=variables
    )


@nox.session
def mutants(session: nox.Session) -> None:
    """Run the mutants against the list of survivors; takes some minutes and wants the machine to itself."""
    run(session, "tests/mutants/run_mutants.py")


@nox.session
def acceptance(session: nox.Session) -> None:
    """Judge the lockers of tests/lockers with the command. Takes an hour; arguments go after --."""
    run(session, "tests/acceptance/run.py")


@nox.session
def pull(session: nox.Session) -> None:
    """Pull one image many times at once, in three ways, from a real registry; arguments go after --."""
    run(session, "benchmarks/pull/run.py")


@nox.session(python=["3.11", "3.13", "3.13t", "3.14t"])
def bench(session: nox.Session) -> None:
    """Measure the locks beside their peers, on each Python that is found; ``-- --write docs/benchmarks.md``."""
    if session.venv_backend != "none":
        session.install("-q", "-e", ".[bench]")
    session.run("python", "benchmarks/locks/run.py", *session.posargs)


@nox.session
def postgres(session: nox.Session) -> None:
    """Test kmutex.postgres on each PostgreSQL of Debian's here, and measure it beside the server's own lock.

    KMUTEX_POSTGRES names the folder of another one's programs, for that one alone.
    """
    install(session)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    named = (
        [session.env["KMUTEX_POSTGRES"]] if session.env.get("KMUTEX_POSTGRES") else [str(folder) for folder in found]
    )
    if not named:
        session.error("PostgreSQL is not installed: apt-get install postgresql")
    for folder in named:
        session.log(f"the PostgreSQL of {folder}")
        session.run("python", "-m", "pytest", "-q", "tests/postgres", *session.posargs, env={"KMUTEX_POSTGRES": folder})
    session.run("python", "benchmarks/postgres/handoff.py")


@nox.session
def ports(session: nox.Session) -> None:
    """Build the ports whose tools are here, run their tests, and speak with their adapters, sound and broken."""
    run(session, "-m", "pytest", "-q", "tests/ports")


@nox.session(python="3.13")
def search(session: nox.Session) -> None:
    """Search known-bad lockers beside other tools; arguments go after --."""
    if session.venv_backend != "none":
        session.install("-q", "-e", ".[search]")
    session.run("python", "benchmarks/search/run.py", *session.posargs)


@nox.session
def interrupts(session: nox.Session) -> None:
    """Count what an interrupt leaves held, before each bytecode and by real signals. Arguments go after --."""
    run(session, "benchmarks/interrupts/run.py")


@nox.session
def package(session: nox.Session) -> None:
    """Build the sdist and the wheel, and look at what they install."""
    run(session, "-m", "pytest", "-q", "-m", "package", "tests/house")
