package clickback.peer;

import static org.apache.kafka.streams.StreamsConfig.consumerPrefix;
import static org.apache.kafka.streams.StreamsConfig.producerPrefix;

import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.Stores;

/**
 * The matcher's peer: reads events, keeps clicks and their transactions in RocksDB, and writes an outcome for each event,
 * exactly once (v2). It does the work of the in-memory floor, so less than Clickback's matcher: one dialect, one policy, no
 * waiting hits, no corrections.
 *
 * <p>{@code Peer KAFKA EVENTS OUTCOMES COUNT STATE}: ends after so many events, when all is committed.
 */
public final class Peer {
    private static final String STORE = "clicks";
    private static final Duration CLOSE = Duration.ofSeconds(60);

    private Peer() {}

    public static void main(String[] args) throws InterruptedException {
        if (args.length != 5) {
            System.err.println("Peer KAFKA EVENTS OUTCOMES COUNT STATE");
            System.exit(2);
        }
        CountDownLatch left = new CountDownLatch(Integer.parseInt(args[3]));
        KafkaStreams streams = new KafkaStreams(topology(args[1], args[2], left), settings(args[0], args[1], args[4]));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        System.out.println("ready");
        streams.start();
        left.await();
        if (!streams.close(CLOSE)) {
            Runtime.getRuntime().halt(1);
        }
    }

    private static Topology topology(String events, String outcomes, CountDownLatch left) {
        var clicks = Stores.keyValueStoreBuilder(
                        Stores.persistentKeyValueStore(STORE), Serdes.Bytes(), Serdes.ByteArray())
                .withLoggingEnabled(Map.of())
                .withCachingDisabled();
        ByteArrayDeserializer reads = new ByteArrayDeserializer();
        ByteArraySerializer writes = new ByteArraySerializer();
        return new Topology()
                .addSource("events", reads, reads, events)
                .addProcessor("match", () -> new Match(STORE, left), "events")
                .addStateStore(clicks, "match")
                .addSink("outcomes", outcomes, writes, writes, Peer::partition, "match");
    }

    /** The key is the shard, in decimal digits. */
    private static Optional<Set<Integer>> partition(String topic, byte[] key, byte[] value, int partitions) {
        int shard = 0;
        for (byte digit : key) {
            shard = shard * 10 + (digit - '0');
        }
        return Optional.of(Set.of(shard % partitions));
    }

    private static Properties settings(String kafka, String events, String state) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "peer-" + events);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, kafka);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, state);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 20);
        settings.put(producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 128 * 1024);
        settings.put(producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        return settings;
    }
}
