import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Reads JSON, which the library has no reader of: a Map, List, String, Long (a whole number), Double, Boolean or null. */
final class Json {
    private final String text;
    private int at;
    private int depth;

    private Json(String text) {
        this.text = text;
    }

    /** An object and nothing besides. Throws IllegalArgumentException. */
    @SuppressWarnings("unchecked")
    static Map<String, Object> object(String text) {
        Json json = new Json(text);
        if (json.next() != '{') {
            throw new IllegalArgumentException("not an object");
        }
        Object value = json.value();
        if (json.next() != 0) {
            throw new IllegalArgumentException("more than one object");
        }
        return (Map<String, Object>) value;
    }

    static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ' || Character.isSurrogate(c)) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }

    private Object value() {
        // Deeper than anything that is read here; without an end a line could fill the stack.
        if (++depth > 50) {
            throw new IllegalArgumentException("too deep");
        }
        Object value = inner();
        depth--;
        return value;
    }

    private Object inner() {
        switch (next()) {
            case '{':
                Map<String, Object> fields = new HashMap<>();
                at++;
                if (!skip('}')) {
                    do {
                        String name = string();
                        expect(':');
                        fields.put(name, value());
                    } while (skip(','));
                    expect('}');
                }
                return fields;
            case '[':
                List<Object> items = new ArrayList<>();
                at++;
                if (!skip(']')) {
                    do {
                        items.add(value());
                    } while (skip(','));
                    expect(']');
                }
                return items;
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw new IllegalArgumentException("an unknown word");
        }
        at += word.length();
        return value;
    }

    private Object number() {
        int from = at;
        while (at < text.length() && "+-.0123456789eE".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
        String digits = text.substring(from, at);
        if (digits.matches("-?[0-9]{1,18}")) {
            return Long.valueOf(digits);
        }
        return Double.valueOf(digits);
    }

    private String string() {
        expect('"');
        StringBuilder out = new StringBuilder();
        for (char c = take(); c != '"'; c = take()) {
            out.append(c == '\\' ? escaped(take()) : c);
        }
        return out.toString();
    }

    private char escaped(char kind) {
        int plain = "\"\\/bfnrt".indexOf(kind);
        if (plain >= 0) {
            return "\"\\/\b\f\n\r\t".charAt(plain);
        }
        if (kind != 'u' || at + 4 > text.length()) {
            throw new IllegalArgumentException("an unknown escape");
        }
        at += 4;
        return (char) Integer.parseInt(text, at - 4, at, 16);
    }

    private char next() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
        return at < text.length() ? text.charAt(at) : 0;
    }

    private boolean skip(char wanted) {
        if (next() != wanted) {
            return false;
        }
        at++;
        return true;
    }

    private void expect(char wanted) {
        if (!skip(wanted)) {
            throw new IllegalArgumentException("expected " + wanted);
        }
    }

    private char take() {
        if (at == text.length()) {
            throw new IllegalArgumentException("the line ends in a text");
        }
        return text.charAt(at++);
    }
}
