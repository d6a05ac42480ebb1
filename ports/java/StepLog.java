import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.Map;
import java.util.Queue;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * The steps of one {@link KeyedMutex}, in the form that {@code kmutex check-trace} judges (specs/trace.md, "inside").
 *
 * <p>A line is written in its step, under the guard, so the order of lines is the order of steps. The references and the
 * holder in it are looked up in the table after the step. A line that can't be written harms no lock: the recording stops
 * for good, and {@link #close} throws what has stopped it.
 */
public final class StepLog<K> {
    private final Appendable out;
    private final Map<Object, Integer> calls = new IdentityHashMap<>();
    private final Map<K, String> texts = new HashMap<>();
    private final long begun = System.nanoTime();
    private Function<K, ? extends Queue<?>> table;
    private int last;
    /** Unlocks that were refused; their names are negative. */
    private int strays;
    private int lines;
    private Exception error;
    private boolean closed;

    public StepLog(Appendable out) {
        this.out = out;
        write(() -> "{\"trace\": 1, \"recorded\": \"inside\"}");
    }

    /** Once. table: of a key, its tickets, the holder first; null where it is not live. */
    void attach(Function<K, ? extends Queue<?>> table) {
        if (this.table != null) {
            throw new IllegalStateException("this log has the steps of another locker");
        }
        this.table = table;
    }

    /** The ticket has taken the key or joined its queue. This and all that follow: under the guard. */
    void asks(K key, Object ticket) {
        calls.put(ticket, ++last);
        line("request", key, last, state(key));
        if (table.apply(key).peek() == ticket) {
            line("grant", key, last, state(key));
        }
    }

    /** A try has found the key held. It was never in the queue, so the first line has no references. */
    void refused(K key) {
        line("request", key, ++last, ", \"timeout\": 0");
        line("fail", key, last, ", \"why\": \"refused\"" + state(key));
    }

    /** The ticket is in the queue no more. held: it had the key, which has gone on. why: of a call that fails. */
    void leaves(K key, Object ticket, boolean held, String why) {
        Integer call = calls.remove(ticket);
        String more = why == null ? "" : ", \"why\": \"" + why + "\"";
        line(why == null ? "release" : "fail", key, call == null ? -++strays : call, more + state(key));
        Queue<?> queue = table.apply(key);
        if (held && queue != null && !queue.isEmpty()) {
            line("grant", key, calls.get(queue.peek()), state(key));
        }
    }

    /** An unlock was refused; lease: whether it was that of a lease. */
    void unheld(K key, boolean lease) {
        line("unheld", key, -++strays, (lease ? ", \"lease\": true" : "") + state(key));
    }

    /** Writes the end, which says that all is idle: every call has returned, and every key is unlocked. */
    public void close(int keys) throws Exception {
        write(() -> "{\"event\": \"end\", \"keys\": " + keys + ", \"n\": " + ++lines + "}");
        closed = true;
        if (error != null) {
            throw error;
        }
    }

    private String state(K key) {
        Queue<?> queue = table.apply(key);
        if (queue == null || queue.isEmpty()) {
            return ", \"refs\": 0";
        }
        return ", \"refs\": " + queue.size() + ", \"holder\": " + calls.get(queue.peek());
    }

    private void line(String event, K key, int call, String more) {
        double at = (System.nanoTime() - begun) / 1e9;
        write(() -> "{\"event\": \"" + event + "\", \"key\": " + text(key) + ", \"call\": " + call + more + ", \"at\": "
                + at + ", \"n\": " + ++lines + "}");
        if (table.apply(key) == null) {
            texts.remove(key);
        }
    }

    /** Two live keys have two texts, whatever they are. A key without a text ends the recording. */
    private String text(K key) {
        String known = texts.get(key);
        if (known != null) {
            return known;
        }
        String kind = key == null ? "no key" : key.getClass().getSimpleName();
        StringBuilder plain = new StringBuilder(key instanceof String ? "" : "<" + kind + "> ");
        String.valueOf(key).codePoints().forEach(point -> {
            boolean itself = point >= ' ' && point != '"' && point != '\\' && Character.getType(point) != Character.SURROGATE;
            plain.append(itself ? Character.toString(point) : String.format("<%x>", point));
        });
        String text = "\"" + plain + "\"";
        for (int number = 2; texts.containsValue(text); number++) {
            text = "\"<" + number + "> " + plain + "\"";
        }
        texts.put(key, text);
        return text;
    }

    private void write(Supplier<String> line) {
        if (error == null && !closed) {
            try {
                out.append(line.get()).append('\n');
            } catch (Exception problem) {
                error = problem;
            }
        }
    }
}
