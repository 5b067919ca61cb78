"""The text of slurm.conf and gres.conf: pure, so that a test can read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """The pretend hardware, and how patient the daemons are."""

    nodes: int = 3
    cpus: int = 8
    gpus: int = 4
    memory_mb: int = 6000
    slurmd_timeout_s: int = 30
    """After which a node that does not answer is DOWN."""
    kill_wait_s: int = 5
    """Between TERM and KILL."""
    min_job_age_s: int = 300
    """For which the record of an ended job is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Names, paths and ports of one cluster."""

    folder: Path
    host: str
    user: str
    munge_socket: Path
    controller_port: int
    node_ports: Sequence[int]


# Empty values and some harmless-looking defaults are parse errors of Slurm: what is not needed is left out.
_TEMPLATE = """\
ClusterName=testcluster
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={first_node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge_socket}
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny

StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
PropagateResourceLimits=NONE

SlurmdParameters=config_overrides
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=64

SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1,bf_continue
KillWait={kill_wait_s}
CompleteWait=0
InactiveLimit=0
MinJobAge={min_job_age_s}
OverTimeLimit=0
ReturnToService=2
SlurmctldTimeout=120
SlurmdTimeout={slurmd_timeout_s}
BatchStartTimeout=30
MessageTimeout=20
TCPTimeout=5
UnkillableStepTimeout=30
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PriorityType=priority/basic
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt

NodeName=DEFAULT CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 \
RealMemory={memory_mb} TmpDisk=0 State=UNKNOWN{gres}
{nodes}
PartitionName=main    Nodes=ALL Default=YES MaxTime=1-00:00:00 DefaultTime=10 State=UP PriorityTier=10 \
PreemptMode=OFF OverSubscribe=NO
PartitionName=preempt Nodes=ALL Default=NO  MaxTime=1-00:00:00 DefaultTime=10 State=UP PriorityTier=1 \
PreemptMode=REQUEUE GraceTime=0
PartitionName=short   Nodes=node1 Default=NO MaxTime=5 DefaultTime=2 State=UP PriorityTier=10 \
PreemptMode=OFF OverSubscribe=NO
"""


def node_names(spec: ClusterSpec) -> list[str]:
    """`node1`, `node2` ..."""
    return [f"node{number}" for number in range(1, spec.nodes + 1)]


def slurm_conf(spec: ClusterSpec, where: Where) -> str:
    """The text of slurm.conf."""
    nodes = [
        f"NodeName={name} NodeHostname={where.host} NodeAddr=127.0.0.1 Port={port}"
        for name, port in zip(node_names(spec), where.node_ports, strict=True)
    ]
    return _TEMPLATE.format(
        host=where.host,
        controller_port=where.controller_port,
        first_node_port=where.node_ports[0],
        user=where.user,
        munge_socket=where.munge_socket,
        folder=where.folder,
        kill_wait_s=spec.kill_wait_s,
        min_job_age_s=spec.min_job_age_s,
        slurmd_timeout_s=spec.slurmd_timeout_s,
        cpus=spec.cpus,
        memory_mb=spec.memory_mb,
        gres=f" Gres=gpu:{spec.gpus}" if spec.gpus else "",
        nodes="\n".join(nodes),
    )


def gres_conf(devices: dict[str, Sequence[Path]]) -> str:
    """The text of gres.conf.

    Args:
        devices: character devices that stand for the GPUs, by node: of plain files Slurm would schedule the
            GPUs, but never set CUDA_VISIBLE_DEVICES.
    """
    lines = [f"NodeName={node} Name=gpu File={device}" for node, files in devices.items() for device in files]
    return "\n".join(lines) + "\n"
