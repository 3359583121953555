"""`python -m metaembed`, and `torchrun -m metaembed` for several processes."""

from metaembed.cli.app import main

if __name__ == "__main__":
    main()
