"""A SLURM of one node, as processes of the test: no systemd, no accounting, ports of its own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "munged", "mungekey")
PATIENCE_SECONDS = 600

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=10
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=24:00:00 State=UP
"""


def missing():
    """Say why SLURM cannot be started here, or give None; install it where that is possible."""
    if os.geteuid() != 0:
        return "SLURM's daemons are started as root, which this is not"
    if all(map(shutil.which, PROGRAMS)):
        return None
    if shutil.which("apt-get") is None:
        return "there is no SLURM, and no apt-get to install it with"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    for command in (["apt-get", "update"], install):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            return f"{' '.join(command)} failed: {done.stderr.strip()[-200:]}"
    return None


@contextmanager
def slurm(folder, cores=4):
    """Start munged, slurmctld and slurmd; give the environment for their commands."""
    host = socket.gethostname().split(".")[0]
    controller, daemon = _free_ports(2)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=host, folder=folder, controller=controller, daemon=daemon, cores=cores
        )
    )
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    with ExitStack() as stack:
        stack.enter_context(_daemon(_munged(folder), folder / "munged.out", environment))
        wait_until((folder / "munge.socket").exists, "munged's socket")
        for name in ("slurmctld", "slurmd"):
            stack.enter_context(_daemon([name, "-D"], folder / f"{name}.out", environment))
        wait_until(lambda: said(environment, "sinfo", "-h", "-o", "%T") == "idle", "the node idle")
        try:
            yield environment
        finally:
            said(environment, "scancel", "--user=root")
            wait_until(lambda: not said(environment, "squeue", "--noheader"), "the end of all jobs")


def said(environment, *command):
    """Call one of SLURM's commands; give what it says."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout.strip()


def _munged(folder):
    """The command that starts munged, with a key, a socket and files of its own."""
    key = folder / "munge.key"
    subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
    files = {"socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munged.seed"}
    options = [f"--{option}={folder / name}" for option, name in files.items()]
    return ["munged", "--foreground", "--force", f"--key-file={key}", *options]


@contextmanager
def _daemon(command, log, environment):
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(number):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]


def wait_until(condition, what):
    """Look again and again until something is so; give it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"never saw {what}"
        time.sleep(0.2)
    return found
