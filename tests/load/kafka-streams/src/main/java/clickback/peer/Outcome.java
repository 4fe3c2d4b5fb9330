package clickback.peer;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.List;

/** Writes what was decided, as the in-memory floor does. */
final class Outcome {
    private static final JsonFactory JSON = new JsonFactory();

    private final ByteArrayOutputStream out = new ByteArrayOutputStream(2_048);

    byte[] ofClick(Event event, Known click) throws IOException {
        try (JsonGenerator json = begin(event, "click")) {
            json.writeFieldName("click");
            click.write(json);
            json.writeEndObject();
        }
        return out.toByteArray();
    }

    /** {@code click}: the one that it names, if that is known. */
    byte[] ofHit(Event event, Known click, List<Event.Goal> converted, String answer) throws IOException {
        try (JsonGenerator json = begin(event, "hit")) {
            json.writeObjectFieldStart("hit");
            json.writeStringField("account", event.account);
            json.writeStringField("program", event.program);
            json.writeObjectFieldStart("raw");
            json.writeStringField("method", event.method);
            json.writeStringField("query", event.query);
            json.writeEndObject();
            if (click != null) {
                json.writeFieldName("click");
                click.write(json);
            }
            json.writeStringField("named", event.named);
            json.writeStringField("outcome", answer);
            json.writeEndObject();
            if (!converted.isEmpty()) {
                json.writeArrayFieldStart("changes");
                for (Event.Goal goal : converted) {
                    change(json, event, click, goal);
                }
                json.writeEndArray();
            }
            json.writeEndObject();
        }
        return out.toByteArray();
    }

    private static void change(JsonGenerator json, Event event, Known click, Event.Goal goal) throws IOException {
        json.writeStartObject();
        json.writeStringField("account", event.account);
        json.writeStringField("click", click.id());
        json.writeFieldName("click_time");
        click.writeTime(json);
        json.writeStringField("time", event.time);
        json.writeStringField("goal", goal.name());
        json.writeNumberField("count", goal.count());
        json.writeStringField("currency", event.currency);
        json.writeStringField("earning", goal.earning());
        json.writeStringField("tid", event.tid);
        json.writeEndObject();
    }

    private JsonGenerator begin(Event event, String kind) throws IOException {
        out.reset();
        JsonGenerator json = JSON.createGenerator(out);
        json.writeStartObject();
        json.writeNumberField("v", 1);
        json.writeStringField("id", event.id);
        json.writeStringField("tenant", event.tenant);
        json.writeStringField("time", event.time);
        json.writeStringField("kind", kind);
        return json;
    }
}
