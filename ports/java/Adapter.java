import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.StringJoiner;
import java.util.function.Supplier;

/**
 * Drives one locker by the adapter protocol, version 1 (specs/protocol.md).
 *
 * <pre>
 * Adapter                 the library
 * Adapter --broken NAME   a locker with one mistake (Broken.java), or with none: the one that they are made in
 * Adapter --list-broken   NAME KM-XXX[,KM-YYY], a line for each
 * </pre>
 */
public final class Adapter {
    private static final int MAX_LINE = 65_536;
    private static final List<String> FEATURES =
            List.of("fifo", "cancel", "pass", "try", "lease", "unheld", "stat", "done", "refuse", "deadline");
    private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);

    /** A command that can't be obeyed. It has an id, so it is answered. */
    private static final class BadCommand extends RuntimeException {
        private static final long serialVersionUID = 1;

        BadCommand(String message) {
            super(message);
        }
    }

    /** A call of lock: its thread while it may wait, and its grant once it has one. */
    private static final class Call {
        Thread thread;
        volatile Locker.Release grant;
    }

    /** What one reset begins. A call of an older session keeps its own locker, and can disturb no later one. */
    private static final class Session {
        final Locker locker;
        final Map<Long, Call> calls = new HashMap<>();

        Session(Locker locker) {
            this.locker = locker;
        }
    }

    private final String name;
    private final List<String> features;
    private final Supplier<Locker> build;
    private Session session;

    /** An adapter of that name, which declares these features and makes a locker at each reset. */
    Adapter(String name, List<String> features, Supplier<Locker> build) {
        this.name = name;
        this.features = features;
        this.build = build;
    }

    public static void main(String[] arguments) throws IOException {
        if (arguments.length == 0) {
            new Adapter("kmutex-java", FEATURES, Locker.Sound::new).serve();
        } else if (arguments.length == 1 && arguments[0].equals("--list-broken")) {
            for (Broken.Mistake mistake : Broken.Mistake.values()) {
                System.out.println(mistake.spelled + " " + mistake.clauses);
            }
        } else if (arguments.length == 2 && arguments[0].equals("--broken")) {
            if (arguments[1].equals("none")) {
                new Adapter("kmutex-java (broken: none)", FEATURES, () -> new Broken(null)).serve();
            }
            for (Broken.Mistake mistake : Broken.Mistake.values()) {
                if (mistake.spelled.equals(arguments[1])) {
                    String name = "kmutex-java (broken: " + mistake.spelled + ")";
                    new Adapter(name, FEATURES, () -> new Broken(mistake)).serve();
                }
            }
            fail("no mistake is called " + arguments[1] + "; --list-broken has them");
        } else {
            fail("usage: Adapter [--list-broken | --broken NAME]");
        }
    }

    /** Obeys standard input to its end, or to bye; then the process ends. */
    void serve() throws IOException {
        InputStream in = new BufferedInputStream(System.in);
        for (boolean going = true; going; ) {
            String line = line(in);
            if (line == null) {
                break;
            }
            Map<String, Object> command = null;
            try {
                command = Json.object(line);
            } catch (IllegalArgumentException problem) {
                fail("not a command: " + problem.getMessage());
            }
            if (!(command.get("id") instanceof Long id)) {
                fail("a command without an id");
                return;
            }
            try {
                going = obey(id, command);
            } catch (RuntimeException problem) {
                error(id, problem);
            }
        }
        // The threads of calls that still wait are not waited for.
        System.exit(0);
    }

    /** False after bye. */
    private boolean obey(long id, Map<String, Object> command) {
        Object op = command.get("op");
        if ("hello".equals(op) && Long.valueOf(1).equals(command.get("protocol"))) {
            StringJoiner words = new StringJoiner(", ", "[", "]");
            features.forEach(feature -> words.add(Json.quoted(feature)));
            reply(id, "\"protocol\": 1, \"name\": " + Json.quoted(name) + ", \"features\": " + words);
        } else if ("reset".equals(op)) {
            session = new Session(build.get());
            result(id, "ok");
        } else if ("bye".equals(op)) {
            result(id, "ok");
            return false;
        } else if (session == null) {
            throw new BadCommand("the first commands are hello, with protocol 1, and reset");
        } else if ("lock".equals(op)) {
            lock(id, field(command, "key", String.class), command);
        } else if ("unlock".equals(op)) {
            unlock(id, field(command, "key", String.class), command);
        } else if ("cancel".equals(op)) {
            Call call = session.calls.get(field(command, "call", Long.class));
            if (call != null && call.thread != null) {
                call.thread.interrupt();
            }
            result(id, "ok");
        } else if ("stat".equals(op)) {
            StringJoiner keys = new StringJoiner(", ", "{", "}");
            session.locker.counts().forEach((key, counts) -> keys.add(Json.quoted(key) + ": {\"refs\": "
                    + counts.references() + ", \"waiters\": " + counts.waiters() + "}"));
            reply(id, "\"keys\": " + keys);
        } else {
            throw new BadCommand("no command is called " + op);
        }
        return true;
    }

    private void lock(long id, String key, Map<String, Object> command) {
        long timeout = command.containsKey("timeout") ? field(command, "timeout", Long.class) : -1;
        if (timeout < 0 && command.containsKey("timeout")) {
            throw new BadCommand("a timeout is not negative");
        }
        boolean done = Boolean.TRUE.equals(command.get("done"));
        Locker locker = session.locker;
        Call call = new Call();
        session.calls.put(id, call);
        if (timeout == 0) {
            // Here, and not in a thread: it does not wait, and stands between the commands before and after it.
            call.grant = locker.tryLock(key);
            result(id, call.grant == null ? "timeout" : "granted");
            return;
        }
        call.thread = new Thread(() -> {
            try {
                if (done) {
                    Thread.currentThread().interrupt();
                }
                call.grant = timeout < 0 ? locker.lock(key) : locker.tryLock(key, timeout);
                result(id, call.grant == null ? "timeout" : "granted");
            } catch (InterruptedException interrupt) {
                result(id, "cancelled");
            } catch (RuntimeException problem) {
                error(id, problem);
            }
        });
        call.thread.setDaemon(true);
        call.thread.start();
    }

    private void unlock(long id, String key, Map<String, Object> command) {
        try {
            if (command.containsKey("lease")) {
                Call call = session.calls.get(field(command, "lease", Long.class));
                if (call == null || call.grant == null) {
                    result(id, "unheld");
                    return;
                }
                call.grant.release();
            } else {
                session.locker.unlock(key);
            }
            result(id, "released");
        } catch (KeyedMutex.UnheldKeyException unheld) {
            result(id, "unheld");
        }
    }

    private static <T> T field(Map<String, Object> command, String name, Class<T> kind) {
        if (!kind.isInstance(command.get(name))) {
            throw new BadCommand("the field " + name + " is missing or wrong");
        }
        return kind.cast(command.get(name));
    }

    private static void result(long id, String word) {
        reply(id, "\"result\": \"" + word + "\"");
    }

    private static void error(long id, Exception problem) {
        reply(id, "\"result\": \"error\", \"message\": " + Json.quoted(problem.toString()));
    }

    /** One object to a line, flushed at once; the threads of the calls write too. */
    private static void reply(long id, String rest) {
        synchronized (OUT) {
            OUT.print("{\"id\": " + id + ", " + rest + "}\n");
            OUT.flush();
        }
    }

    /** The next line, without its end; null at the end of the input. */
    private static String line(InputStream in) throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        int next = in.read();
        if (next < 0) {
            return null;
        }
        for (; next >= 0 && next != '\n'; next = in.read()) {
            line.write(next);
            if (line.size() >= MAX_LINE) {
                fail("a line of more than " + MAX_LINE + " bytes");
            }
        }
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(line.toByteArray())).toString();
        } catch (CharacterCodingException problem) {
            fail("a line that is not UTF-8");
            return null;
        }
    }

    /** Ends the adapter: whoever sent the line can't be answered, since its id is not known. */
    private static void fail(String message) {
        System.err.println("adapter: " + message);
        System.exit(2);
    }
}
