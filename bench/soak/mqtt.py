"""The packets of MQTT 3.1.1 and 5.0 that the soak needs, over plain sockets: the ledger must see each packet id."""
import select, socket, struct

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14
NAMES = {CONNACK: "CONNACK", PUBLISH: "PUBLISH", PUBACK: "PUBACK", SUBACK: "SUBACK", PINGRESP: "PINGRESP",
         DISCONNECT: "DISCONNECT"}


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(raw)) + raw


def length(value):
    """The variable byte integer (MQTT 5.0, 1.5.5)."""
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def packet(kind, flags, body):
    return bytes([kind << 4 | flags]) + length(len(body)) + body


def connect(client_id, v5=False, clean=False, keepalive=60, expiry=86_400, user=None, password=None):
    flags = (2 if clean else 0) | (0x80 if user else 0) | (0x40 if password else 0)
    body = text("MQTT") + bytes([5 if v5 else 4, flags]) + struct.pack(">H", keepalive)
    if v5:
        # Session Expiry Interval (0x11).
        properties = struct.pack(">BI", 0x11, expiry)
        body += length(len(properties)) + properties
    body += text(client_id) + (text(user) if user else b"") + (text(password) if password else b"")
    return packet(CONNECT, 0, body)


def publish(topic, payload, packet_id, v5=False, duplicate=False):
    body = text(topic) + struct.pack(">H", packet_id) + (b"\0" if v5 else b"") + payload
    return packet(PUBLISH, 2 | (8 if duplicate else 0), body)


def subscribe(topic_filter, packet_id, v5=False):
    return packet(SUBSCRIBE, 2, struct.pack(">H", packet_id) + (b"\0" if v5 else b"") + text(topic_filter) + b"\1")


def puback(packet_id):
    return packet(PUBACK, 0, struct.pack(">H", packet_id))


PING = packet(PINGREQ, 0, b"")
GOODBYE = packet(DISCONNECT, 0, b"")


class Packet:
    """A packet of the broker, decoded as far as it is used here."""

    def __init__(self, first, body, v5):
        self.kind, self.flags, self.body = first >> 4, first & 15, body
        self.id = self.topic = self.payload = None
        self.duplicate = bool(self.kind == PUBLISH and first & 8)
        if self.kind == PUBLISH:
            end = 2 + struct.unpack_from(">H", body)[0]
            self.topic = body[2:end].decode()
            if first & 6:
                self.id = struct.unpack_from(">H", body, end)[0]
                end += 2
            if v5:
                size, end = variable(body, end)
                end += size
            self.payload = body[end:]
        elif self.kind in (PUBACK, SUBACK):
            self.id = struct.unpack_from(">H", body)[0]
        elif self.kind == CONNACK:
            self.session_present, self.code = bool(body[0] & 1), body[1]

    @property
    def refused(self):
        """A CONNACK or, in 5.0, a PUBACK with an error code (MQTT 5.0, 3.4.2.1)."""
        if self.kind == CONNACK:
            return self.code != 0
        return self.kind == PUBACK and len(self.body) > 2 and self.body[2] >= 0x80

    def __str__(self):
        name = NAMES.get(self.kind, str(self.kind))
        if self.kind == PUBLISH:
            return f"{name} id={self.id} dup={int(self.duplicate)} {self.payload.decode(errors='replace')}"
        if self.kind == CONNACK:
            return f"{name} session_present={int(self.session_present)} code={self.code}"
        if self.kind == DISCONNECT:
            return f"{name} {self.body.hex()}"
        return f"{name} id={self.id}"


def variable(body, at):
    value = shift = 0
    while True:
        digit = body[at]
        at += 1
        value |= (digit & 127) << shift
        shift += 7
        if not digit & 128:
            return value, at


class Link:
    """One connection: non-blocking, with buffers of its own. `closed` once the peer has gone."""

    def __init__(self, port, v5=False):
        self.v5, self.closed, self.out, self.incoming = v5, False, bytearray(), bytearray()
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=2)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def send(self, data):
        self.out += data
        self.flush()

    def flush(self):
        while self.out and not self.closed:
            try:
                del self.out[:self.socket.send(self.out)]
            except BlockingIOError:
                return
            except OSError:
                self.closed = True

    def receive(self):
        """The whole packets that have arrived."""
        while not self.closed:
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
            self.incoming += data
        found = []
        while len(self.incoming) >= 2:
            size = shift = 0
            for at in range(1, min(5, len(self.incoming))):
                size |= (self.incoming[at] & 127) << shift
                shift += 7
                if not self.incoming[at] & 128:
                    break
            else:
                break
            if len(self.incoming) < at + 1 + size:
                break
            found.append(Packet(self.incoming[0], bytes(self.incoming[at + 1:at + 1 + size]), self.v5))
            del self.incoming[:at + 1 + size]
        return found

    def wait(self, seconds):
        """Packets, as soon as there are some; none after `seconds`."""
        if self.closed or not select.select([self.socket], [], [], seconds)[0]:
            return []
        return self.receive()

    def close(self):
        self.closed = True
        self.socket.close()
