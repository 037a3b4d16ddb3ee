"""What a QUIC client sends first."""

from __future__ import annotations

import ssl

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicProtocolVersion

__all__ = ["QuicProtocolVersion", "first_flight"]


def first_flight(
    host: str | None,
    *protocols: str,
    version: QuicProtocolVersion = QuicProtocolVersion.VERSION_1,
) -> list[bytes]:
    """The datagrams that aioquic begins with; the more `protocols`, the more."""
    configuration = QuicConfiguration(
        server_name=host,
        alpn_protocols=list(protocols or ("h3",)),
        verify_mode=ssl.CERT_NONE,
        original_version=version,
        supported_versions=[version],
    )
    client = QuicConnection(configuration=configuration)
    client.connect(("192.0.2.7", 443), now=0.0)
    return [data for data, _ in client.datagrams_to_send(now=0.0)]
