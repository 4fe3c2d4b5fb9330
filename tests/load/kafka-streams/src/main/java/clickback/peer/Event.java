package clickback.peer;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** What the peer needs of a click or a hit. One object is used for all events. */
final class Event {
    private static final JsonFactory JSON = new JsonFactory();

    record Goal(String name, int count, String earning) {}

    String id;
    String tenant;
    String time;

    String clickId;
    String clickTime;
    /** link, dyn, sub1, sub2, sub3. */
    final String[] labels = new String[Known.LABELS.length];

    String account;
    String program;
    String method;
    String query;
    String named;
    String tid;
    String currency;
    final List<Goal> goals = new ArrayList<>();

    private interface Field {
        void read(JsonParser parser, String name) throws IOException;
    }

    void read(byte[] json) throws IOException {
        named = null;
        tid = null;
        currency = null;
        goals.clear();
        Arrays.fill(labels, null);
        try (JsonParser parser = JSON.createParser(json)) {
            parser.nextToken();
            object(parser, this::top);
        }
    }

    /** The parser stands on the object's beginning, and then on its end. */
    private static void object(JsonParser parser, Field field) throws IOException {
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            String name = parser.currentName();
            parser.nextToken();
            field.read(parser, name);
        }
    }

    private void top(JsonParser parser, String name) throws IOException {
        switch (name) {
            case "id" -> id = parser.getText();
            case "tenant" -> tenant = parser.getText();
            case "time" -> time = parser.getText();
            case "body" -> object(parser, this::body);
            default -> parser.skipChildren();
        }
    }

    private void body(JsonParser parser, String name) throws IOException {
        switch (name) {
            case "click" -> object(parser, this::click);
            case "hit" -> object(parser, this::hit);
            default -> parser.skipChildren();
        }
    }

    private void click(JsonParser parser, String name) throws IOException {
        switch (name) {
            case "id" -> clickId = parser.getText();
            case "time" -> clickTime = parser.getText();
            case "link" -> labels[0] = parser.getText();
            case "dyn" -> labels[1] = parser.getText();
            case "sub1" -> labels[2] = parser.getText();
            case "sub2" -> labels[3] = parser.getText();
            case "sub3" -> labels[4] = parser.getText();
            default -> parser.skipChildren();
        }
    }

    private void hit(JsonParser parser, String name) throws IOException {
        switch (name) {
            case "account" -> account = parser.getText();
            case "program" -> program = parser.getText();
            case "raw" -> object(parser, this::raw);
            case "reading" -> object(parser, this::reading);
            default -> parser.skipChildren();
        }
    }

    private void raw(JsonParser parser, String name) throws IOException {
        switch (name) {
            case "method" -> method = parser.getText();
            case "query" -> query = parser.getText();
            default -> parser.skipChildren();
        }
    }

    private void reading(JsonParser parser, String name) throws IOException {
        switch (name) {
            case "click" -> named = parser.getText();
            case "tid" -> tid = parser.getText();
            case "currency" -> currency = parser.getText();
            case "goals" -> {
                while (parser.nextToken() == JsonToken.START_OBJECT) {
                    goals.add(goal(parser));
                }
            }
            default -> parser.skipChildren();
        }
    }

    private static Goal goal(JsonParser parser) throws IOException {
        String goal = null;
        String earning = null;
        int count = 0;
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            String name = parser.currentName();
            parser.nextToken();
            switch (name) {
                case "goal" -> goal = parser.getText();
                case "count" -> count = parser.getIntValue();
                case "money" -> earning = earning(parser);
                default -> parser.skipChildren();
            }
        }
        return new Goal(goal, count, earning);
    }

    private static String earning(JsonParser parser) throws IOException {
        String earning = null;
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            boolean wanted = parser.currentName().equals("earning");
            parser.nextToken();
            if (wanted) {
                earning = parser.getText();
            } else {
                parser.skipChildren();
            }
        }
        return earning;
    }
}
