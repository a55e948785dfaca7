"""The data plane beside the VPNs and tunnels people use: same machine, same minute, same programs that send."""
