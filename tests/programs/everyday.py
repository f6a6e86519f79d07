"""The programs of every day: git, sqlite, LMDB, tar, rsync, cp, sed, pip, npm, a C build, compileall."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.system import harness

from .program import Place, Program


def exported(place: Place, moment: str) -> Path:
    """A moment as a directory."""
    out = place.top / f"exported-{moment}"
    result = harness.run("export", place.trace, "--time", moment, "--out", out)
    assert result.returncode == 0, result.stderr
    return out


def said(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


# -- git -------------------------------------------------------------------------------------

GIT = r"""
git config --global user.email a@example.org; git config --global user.name A; git config --global gc.auto 0
git init -q -b main origin; cd origin
for i in $(seq $N); do
    seq $i > f$i; mkdir -p d$((i % 7)); echo $i >> d$((i % 7))/x; git add .; git commit -qm "c$i"
done
git checkout -q -b side HEAD~$((N / 2)); for i in 1 2 3; do echo s$i > s$i; git add .; git commit -qm "s$i"; done
cd ..; moment committed
git clone -q --no-local origin copy; git clone -q --mirror origin mirror
cd copy; git checkout -q side; git rebase -q origin/main; moment rebased
git checkout -q -b topic; echo t >> f1; git stash -q; git stash pop -q; git commit -qam t
git worktree add -q ../tree origin/main; git tag -a v1 -m v1
git gc -q --aggressive --prune=now; git repack -qad; git fsck --strict
"""


def check_git(place: Place) -> None:
    """A repository from the middle is sound and knows its history."""
    origin, copy = exported(place, "committed") / "origin", exported(place, "rebased") / "copy"
    for repository in (origin, copy):
        said("git", "-C", repository, "-c", "safe.directory=*", "fsck", "--strict")
    assert len(said("git", "-C", origin, "log", "--oneline", "main").splitlines()) >= 10
    assert said("git", "-C", copy, "log", "-1", "--format=%s").strip() == "s3"


# -- databases -------------------------------------------------------------------------------

SQLITE_WAL = r"""
"$PYTHON" - <<END
import os, sqlite3, subprocess
def moment(name):
    try: open(f"/.diffkeeper/mark/{name}")
    except OSError: pass
    with open(os.environ["ASK"], "w") as ask: ask.write(name + "\n")
    with open(os.environ["ANSWER"]) as answer: answer.readline()
writer, reader = sqlite3.connect("db"), sqlite3.connect("db")
assert writer.execute("pragma journal_mode = wal").fetchone() == ("wal",)
writer.execute("create table t(id integer primary key, a, b)")
for number in range($N):
    with writer:
        writer.executemany("insert into t(a, b) values (?, ?)", ((i, os.urandom(50)) for i in range(50)))
    if number == $N // 2:
        assert reader.execute("select count(*) from t").fetchone() == (50 * (number + 1),)
        moment("committed")
        with open("expected", "w") as file: file.write(str(50 * (number + 1)))
    if number % 20 == 19:
        writer.execute("pragma wal_checkpoint(restart)")
with writer: writer.execute("delete from t where a % 3 = 0")
reader.close()
moment("open")
writer.execute("vacuum")
writer.close()
END
"""


def check_sqlite(place: Place) -> None:
    """The database of the middle, with its log beside it, is recovered: all that was committed is in it."""
    database = exported(place, "committed") / "db"
    assert (database.parent / "db-wal").stat().st_size > 0
    rows = said("sqlite3", database, "pragma integrity_check; select count(*) from t").split()
    assert rows == ["ok", (place.work / "expected").read_text()]


LMDB = r"""
"$PYTHON" - <<END
import os, lmdb
def moment(name):
    try: open(f"/.diffkeeper/mark/{name}")
    except OSError: pass
    with open(os.environ["ASK"], "w") as ask: ask.write(name + "\n")
    with open(os.environ["ANSWER"]) as answer: answer.readline()
environment = lmdb.open("db", map_size=64 << 20, writemap=bool($WRITEMAP), map_async=False)
for number in range($N):
    with environment.begin(write=True) as txn:
        for key in range(50):
            txn.put(b"%d-%d" % (key, number % 7), os.urandom(100 + number))
        txn.put(b"last", b"%d" % number)
    if number == $N // 2:
        environment.sync(True)
        moment("committed")
environment.sync(True)
environment.close()
END
"""


def check_lmdb(place: Place) -> None:
    """An environment opened from the middle has its last transaction, and all keys can be read."""
    code = (
        "import lmdb, sys\n"
        "with lmdb.open(sys.argv[1], readonly=True, lock=False) as e, e.begin() as t:\n"
        "    assert sum(1 for _ in t.cursor()) > 50; print(t.get(b'last').decode())"
    )
    last = said(sys.executable, "-c", code, exported(place, "committed") / "db")
    assert int(last) >= 10


# -- copies ----------------------------------------------------------------------------------

COPIES = r"""
cp -r /usr/include/$TREE one; cp -r one two; cp -a two three; moment copied
tar cf 3.tar three; tar czf 3.tar.gz three; mkdir out; tar xf 3.tar -C out
tar xzf 3.tar.gz -C two --strip-components=1; moment unpacked
sed -i 's/a/b/; $d' two/*.h; sed -i.bak --follow-symlinks s/define/DEFINE/ three/*.h
rsync -a --delete two/ mirror/; rsync -a --inplace --no-whole-file --checksum one/ mirror/
rsync -aH --sparse three/ other/
moment mirrored
rsync -a --delete --link-dest="$PWD/other" three/ snapshot/; mv three renamed; rm -r one
truncate -s 3M sparse; echo end >> sparse; cp --sparse=always sparse holes; cp --sparse=never sparse full
install -D -m 750 full bin/full; ln -s full soft; cp -P soft soft2; cp -l full hard; dd if=full of=dd bs=7k status=none
split -b 500k full part-; cat part-* > joined; cmp full joined; zip -qr tree.zip out; unzip -q tree.zip -d unzipped
"""
REFLINK = r"""
head -c 3000000 /dev/urandom > a; cp --reflink=always a b; moment cloned
printf changed | dd of=b bs=1 seek=1000000 conv=notrunc status=none
cp --reflink=always b c; cp -a --reflink=auto . "$ASIDE/all"
"$PYTHON" - <<END
import fcntl, os, struct
a, c = os.open("a", os.O_RDONLY), os.open("c", os.O_RDWR)
fcntl.ioctl(c, 0x4020940D, struct.pack("qQQQ", a, 4096, 8192, 65536))  # FICLONERANGE
d = os.open("d", os.O_RDWR | os.O_CREAT)
os.ftruncate(d, 1 << 20)
fcntl.ioctl(d, 0x4020940D, struct.pack("qQQQ", a, 0, 8192, 1 << 20))
END
"""

# -- builds ----------------------------------------------------------------------------------

BUILD = r"""
mkdir -p src obj
for i in $(seq $N); do
    printf '#include <stdio.h>\nint f%d(void) { return printf("%d"); }\n' $i $i > src/f$i.c
    echo "int f$i(void);" >> declared; echo "f$i() +" >> called
done
{ cat declared; echo 'int main(void) { return !('; cat called; echo '0); }'; } > src/main.c
cat > Makefile <<'END'
OBJECTS := $(patsubst src/%.c,obj/%.o,$(wildcard src/*.c))
.RECIPEPREFIX = >
all: program libf.a
obj/%.o: src/%.c
> $(CC) -g -O1 -MD -c -o $@ $<
program: $(OBJECTS)
> $(CC) -o $@ $^
libf.a: $(OBJECTS)
> ar rcs $@ $^
END
make -j4 > log 2>&1; moment built
touch src/f1.c; make -j4 >> log 2>&1; ./program > out
strip -o stripped program; objcopy --only-keep-debug program debug
cp -r "$("$PYTHON" -c 'import json; print(json.__path__[0])')" package
"$PYTHON" -m compileall -q package -j 2; moment compiled
"$PYTHON" -O -m compileall -q -f --invalidation-mode checked-hash package
"""


def prepare_wheel(place: Place) -> None:
    """A wheel made by hand, so that no index is needed."""
    with zipfile.ZipFile(place.aside / "thing-1.0-py3-none-any.whl", "w") as wheel:
        files = {f"thing/m{i}.py": f"VALUE = {i}\n" * 20 for i in range(60)}
        files |= {"thing/__init__.py": "def main():\n    print('thing')\n", "thing/data/blob.bin": "x" * 100_000}
        info = "thing-1.0.dist-info"
        files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n"
        files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        files[f"{info}/entry_points.txt"] = "[console_scripts]\nthing = thing:main\n"
        files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
        for name, text in files.items():
            wheel.writestr(name, text)


PIP = r"""
"$PYTHON" -m venv --without-pip env; moment made
pip() { "$PYTHON" -m pip --python env/bin/python --disable-pip-version-check -q "$@"; }
pip install --no-index --find-links "$ASIDE" thing; moment installed
env/bin/thing > said
pip install --no-index --find-links "$ASIDE" --force-reinstall thing; pip uninstall -y thing
"""


def check_pip(place: Place) -> None:
    """What was installed in the middle can be imported from there."""
    packages = next((exported(place, "installed") / "env/lib").glob("*/site-packages"))
    code = "import sys; sys.path.insert(0, sys.argv[1]); import thing.m7; print(thing.m7.VALUE, thing.__file__)"
    assert said(sys.executable, "-c", code, packages).split() == ["7", f"{packages}/thing/__init__.py"]


def prepare_npm(place: Place) -> None:
    """Packages of our own that depend on each other, so that no registry is needed."""
    for name, needs in {"base": [], "middle": ["base"], "top": ["middle", "base"]}.items():
        package = place.aside / name
        package.mkdir()
        files = {f"lib/m{i}.js": f"module.exports = {i};\n" * 10 for i in range(40)}
        files["index.js"] = f"module.exports = '{name}';\n"
        files["cli.js"] = "#!/usr/bin/env node\nconsole.log(require('./index.js'));\n"
        depends = {need: f"file:{place.aside}/{need}-1.0.0.tgz" for need in needs}
        about = {"name": name, "version": "1.0.0", "bin": {name: "cli.js"}, "dependencies": depends}
        files["package.json"] = json.dumps(about)
        for path, text in files.items():
            (package / path).parent.mkdir(exist_ok=True)
            (package / path).write_text(text)
        subprocess.run(["npm", "pack", "--silent", f"./{name}"], cwd=place.aside, check=True, capture_output=True)


NPM = r"""
export npm_config_cache="$PWD/cache" npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
npm init -y > /dev/null; npm install --offline --silent "$ASIDE/top-1.0.0.tgz"; moment installed
npx --offline --no top > said; npm ls --all > listed; rm -rf node_modules; npm ci --offline --silent
npm uninstall --offline --silent top
"""


def check_npm(place: Place) -> None:
    """The program that was installed in the middle runs from there."""
    tree = exported(place, "installed")
    assert os.access(tree / "node_modules/.bin/top", os.X_OK)
    assert said("node", tree / "node_modules/.bin/top") == "top\n"


PROGRAMS = [
    Program("git", GIT, {"N": 20}, {"N": 400}, events=500, check=check_git),
    Program("sqlite, write-ahead log", SQLITE_WAL, {"N": 40}, {"N": 2000}, events=100, check=check_sqlite),
    Program("LMDB", LMDB, {"N": 40, "WRITEMAP": 0}, {"N": 2000}, events=50, check=check_lmdb),
    Program("LMDB, writemap", LMDB, {"N": 40, "WRITEMAP": 1}, {"N": 2000}, events=50, check=check_lmdb),
    Program("cp, tar, sed, rsync", COPIES, {"TREE": "rdma"}, {"TREE": "linux"}, events=300),
    Program("cp --reflink", REFLINK, only_on=frozenset(["btrfs", "xfs"]), events=10),
    Program("make, gcc, compileall", BUILD, {"N": 8}, {"N": 200}, events=200),
    Program("venv, pip install", PIP, events=300, prepare=prepare_wheel, check=check_pip),
    Program("npm install", NPM, events=100, prepare=prepare_npm, check=check_npm),
]
