package clickback.peer;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Decides each event on the clicks that came before it. */
final class Match implements Processor<byte[], byte[], byte[], byte[]> {
    private static final byte[] CLICK = "click".getBytes(StandardCharsets.US_ASCII);
    private static final byte[] HIT = "hit".getBytes(StandardCharsets.US_ASCII);

    private final String storeName;
    private final CountDownLatch left;
    private final Event event = new Event();
    private final Outcome outcome = new Outcome();
    private final List<Event.Goal> converted = new ArrayList<>();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<Bytes, byte[]> clicks;

    Match(String storeName, CountDownLatch left) {
        this.storeName = storeName;
        this.left = left;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        this.clicks = context.getStateStore(storeName);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        Header header = record.headers().lastHeader("type");
        byte[] type = header == null ? null : header.value();
        boolean isClick = Arrays.equals(type, CLICK);
        if (!isClick && !Arrays.equals(type, HIT)) {
            return;
        }
        byte[] decided;
        try {
            event.read(record.value());
            decided = isClick ? click() : hit();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        long src = context.recordMetadata().orElseThrow().offset();
        RecordHeaders headers = new RecordHeaders();
        headers.add("type", type);
        headers.add("src", Long.toString(src).getBytes(StandardCharsets.US_ASCII));
        context.forward(record.withValue(decided).withHeaders(headers));
        left.countDown();
    }

    private byte[] click() throws IOException {
        Known click = Known.of(event);
        clicks.put(key(event.clickId), click.bytes());
        return outcome.ofClick(event, click);
    }

    private byte[] hit() throws IOException {
        Bytes key = event.named == null ? null : key(event.named);
        byte[] stored = key == null ? null : clicks.get(key);
        converted.clear();
        if (stored == null) {
            return outcome.ofHit(event, null, converted, "waiting");
        }
        Known click = Known.of(event.named, stored);
        for (Event.Goal goal : event.goals) {
            if (click.takes(event.tid, goal.name())) {
                converted.add(goal);
            }
        }
        if (converted.isEmpty()) {
            return outcome.ofHit(event, click, converted, "duplicate");
        }
        clicks.put(key, click.bytes());
        return outcome.ofHit(event, click, converted, "converted");
    }

    private static Bytes key(String id) {
        return Bytes.wrap(id.getBytes(StandardCharsets.UTF_8));
    }
}
