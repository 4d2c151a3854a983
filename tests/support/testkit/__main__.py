"""`python -m testkit up|down|status|kubectl …|node NAME …`: the cluster from the command line."""

import os
import sys

from testkit import binaries, image, packages
from testkit.cluster import Cluster
from testkit.progress import Progress

USAGE = """usage: python -m testkit COMMAND
  fetch               get every program and the image of the working tree into the cache
  up                  start the cluster, or whatever of it does not run
  down                remove everything, and say so
  status              what runs
  kubectl ARG…        kubectl as administrator
  node NAME ARG…      a command in a node's namespaces
  add-node NAME       start a further node
  remove-node NAME    end and remove a node"""


def main(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    cluster = Cluster(progress=Progress())
    match arguments:
        case ["fetch"]:
            _fetch(cluster.progress)
        case ["up"]:
            cluster.up()
            print(f"export KUBECONFIG={cluster.kubeconfig}")
        case ["down"]:
            return _down(cluster)
        case ["status"]:
            return _status(cluster)
        case ["kubectl", *rest]:
            command = cluster.kubectl_command(*rest)
            os.execv(command[0], command)  # noqa: S606 - no shell, and the terminal stays with kubectl
        case ["node", name, *rest]:
            node = cluster.nodes.get(name)
            if node is None:
                raise RuntimeError(f"there is no node {name}; there are {', '.join(cluster.nodes) or 'none'}")
            command = node.command(rest)
            os.execvp(command[0], command)  # noqa: S606 - as above
        case ["add-node", name]:
            cluster.add_node(name)
        case ["remove-node", name]:
            cluster.remove_node(name)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    return 0


def _fetch(progress: Progress) -> None:
    """Fill the cache; without root there is nothing that could use it."""
    if os.geteuid() != 0:
        progress.say("not root: nothing is fetched, and the tests that need a cluster will be reported as not run")
        return
    packages.ensure_commands(packages.COMMANDS, progress)
    binaries.fetch(progress)
    image.build(progress)


def _down(cluster: Cluster) -> int:
    """Remove everything; fail when something stays."""
    left = cluster.down()
    if not left:
        cluster.progress.say("nothing left")
        return 0
    print("left behind:", *left, sep="\n  ", file=sys.stderr)
    return 1


def _status(cluster: Cluster) -> int:
    """Say what runs; fail when the cluster is not healthy."""
    for role, pid in cluster.daemons().items():
        print(f"{role:28} {'process ' + str(pid) if pid else 'does not run'}")
    healthy = cluster.healthy()
    print("the cluster is healthy" if healthy else "the cluster is not healthy, or there is none: `up` repairs it")
    return 0 if healthy else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except (RuntimeError, OSError, ValueError) as failure:
        print(f"testkit: {failure}\n`up` goes on from here, `down` removes everything.", file=sys.stderr)
        raise SystemExit(1) from failure
    except KeyboardInterrupt:
        print("interrupted: `up` goes on from here, `down` removes everything.", file=sys.stderr)
        raise SystemExit(130) from None
