package clickback.peer;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.SerializableString;
import com.fasterxml.jackson.core.io.SerializedString;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * A click as it is stored: its time and labels, then transaction and goal of each of its conversions. Every text has two
 * bytes of length before it; {@code ABSENT} stands for none. The click's id is the key.
 */
final class Known {
    static final SerializableString[] LABELS = {
        new SerializedString("link"),
        new SerializedString("dyn"),
        new SerializedString("sub1"),
        new SerializedString("sub2"),
        new SerializedString("sub3"),
    };
    private static final SerializableString ID = new SerializedString("id");
    private static final SerializableString TIME = new SerializedString("time");
    private static final int ABSENT = 0xffff;

    private final String id;
    private byte[] bytes;

    private Known(String id, byte[] bytes) {
        this.id = id;
        this.bytes = bytes;
    }

    static Known of(Event event) {
        String[] texts = new String[1 + LABELS.length];
        texts[0] = event.clickTime;
        System.arraycopy(event.labels, 0, texts, 1, LABELS.length);
        return new Known(event.clickId, joined(texts));
    }

    static Known of(String id, byte[] stored) {
        return new Known(id, stored);
    }

    String id() {
        return id;
    }

    byte[] bytes() {
        return bytes;
    }

    /** Whether it has no such conversion yet; then it has one. */
    boolean takes(String tid, String goal) {
        byte[] entry = joined(tid, goal);
        int at = 0;
        for (int text = 0; text < 1 + LABELS.length; text++) {
            at = after(at);
        }
        while (at < bytes.length) {
            int end = after(after(at));
            if (Arrays.equals(bytes, at, end, entry, 0, entry.length)) {
                return false;
            }
            at = end;
        }
        bytes = Arrays.copyOf(bytes, bytes.length + entry.length);
        System.arraycopy(entry, 0, bytes, bytes.length - entry.length, entry.length);
        return true;
    }

    /** As an object, without a detour over strings. */
    void write(JsonGenerator json) throws IOException {
        json.writeStartObject();
        json.writeFieldName(ID);
        json.writeString(id);
        json.writeFieldName(TIME);
        writeTime(json);
        int at = after(0);
        for (SerializableString label : LABELS) {
            if (length(at) != ABSENT) {
                json.writeFieldName(label);
                json.writeUTF8String(bytes, at + 2, length(at));
            }
            at = after(at);
        }
        json.writeEndObject();
    }

    void writeTime(JsonGenerator json) throws IOException {
        json.writeUTF8String(bytes, 2, length(0));
    }

    private int length(int at) {
        return (bytes[at] & 0xff) << 8 | bytes[at + 1] & 0xff;
    }

    private int after(int at) {
        int length = length(at);
        return at + 2 + (length == ABSENT ? 0 : length);
    }

    private static byte[] joined(String... texts) {
        byte[][] parts = new byte[texts.length][];
        int size = 0;
        for (int i = 0; i < texts.length; i++) {
            parts[i] = texts[i] == null ? null : texts[i].getBytes(StandardCharsets.UTF_8);
            size += 2 + (parts[i] == null ? 0 : parts[i].length);
        }
        byte[] all = new byte[size];
        int at = 0;
        for (byte[] part : parts) {
            int length = part == null ? ABSENT : part.length;
            all[at++] = (byte) (length >> 8);
            all[at++] = (byte) length;
            if (part != null) {
                System.arraycopy(part, 0, all, at, part.length);
                at += part.length;
            }
        }
        return all;
    }
}
