"""``PYTHONPATH=tests python -m cluster``: a cluster to try things on, with the same parts as the tests' own."""

import argparse
import sys
from pathlib import Path

from cluster import images
from cluster.errors import ClusterError
from cluster.node import Node
from cluster.programs import CACHE, CONTROL_PLANE, NODE, programs


def main() -> None:
    """One verb."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("programs", help="build what is missing of the cluster's programs").add_argument(
        "--control-plane", action="store_true", help="only what a cluster without a node needs"
    )
    verbs.add_parser("images", help="build the project's images; prints the paths of their archives")
    verbs.add_parser("up", help="start the cluster afresh; prints how to use it").add_argument(
        "archives", nargs="*", type=Path, help="images to load"
    )
    verbs.add_parser("down", help="stop the cluster and forget everything on it")
    arguments = parser.parse_args()
    try:
        _VERBS[arguments.verb](arguments)
    except ClusterError as error:
        sys.exit(str(error))


def _programs(arguments: argparse.Namespace) -> None:
    programs(CONTROL_PLANE if arguments.control_plane else CONTROL_PLANE + NODE)


def _images(_: argparse.Namespace) -> None:
    for name, target in ((images.TRIAL_IMAGE, "trial"), (images.IMAGE, "")):
        images.build(name, images.ARCHIVES[name], target=target)
        print(images.ARCHIVES[name])


def _up(arguments: argparse.Namespace) -> None:
    node = Node(tied=False)
    node.start()
    for archive in arguments.archives:
        node.load(archive)
    print(f"export KUBECONFIG={node.kubeconfig} PATH={CACHE / 'bin'}:$PATH")


def _down(_: argparse.Namespace) -> None:
    Node(tied=False).stop()


_VERBS = {"programs": _programs, "images": _images, "up": _up, "down": _down}

if __name__ == "__main__":
    main()
