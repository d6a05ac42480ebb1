import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Supplier;

/**
 * Plays specs/vectors.json in this process, by the words of specs/vectors.md: the library takes a right course through
 * each, as does what the mistakes of Broken.java are made in; each mistake through not all. What many rounds say of times
 * is not judged here.
 */
final class VectorsTest {
    private static final long PATIENCE = 10_000_000_000L;
    private static final long SHORT = 1_000_000_000L;

    private final List<Map<String, Object>> vectors;
    private final Supplier<Locker> build;
    private final long patience;

    private VectorsTest(List<Map<String, Object>> vectors, Supplier<Locker> build, long patience) {
        this.vectors = vectors;
        this.build = build;
        this.patience = patience;
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        String file = System.getenv().getOrDefault("KMUTEX_VECTORS", "../../specs/vectors.json");
        Map<String, Object> read = Json.object(Files.readString(Path.of(file)));
        if (!"kmutex-vectors/2".equals(read.get("format"))) {
            throw new AssertionError("these vectors are of another format: " + read.get("format"));
        }
        List<Map<String, Object>> vectors = list(read.get("vectors"));
        for (Supplier<Locker> right : List.<Supplier<Locker>>of(Locker.Sound::new, () -> new Broken(null))) {
            String wrong = new VectorsTest(vectors, right, PATIENCE).firstFailure();
            if (wrong != null) {
                throw new AssertionError(right.get().getClass() + ": " + wrong);
            }
        }
        for (Broken.Mistake mistake : Broken.Mistake.values()) {
            if (new VectorsTest(vectors, () -> new Broken(mistake), SHORT).firstFailure() == null) {
                throw new AssertionError(mistake.spelled + " takes a right course through every vector");
            }
        }
        System.out.println(vectors.size() + " vectors, " + Broken.Mistake.values().length + " mistakes found");
        System.exit(0);
    }

    /** Null: each vector takes one of its courses. All features are there, so none is left out. */
    private String firstFailure() throws InterruptedException {
        for (Map<String, Object> vector : vectors) {
            long rounds = (Long) vector.getOrDefault("rounds", 1L);
            int[] met = new int[2];
            for (long round = 0; round < rounds; round++) {
                String wrong = new Play(vector).wrong(met);
                if (wrong != null) {
                    return vector.get("id") + ", round " + round + ": " + wrong;
                }
            }
            if (met[0] >= 10 && met[1] == 0) {
                return vector.get("id") + ": pass is declared, and no grant that met an interrupt was passed on";
            }
        }
        return null;
    }

    /** One vector on a new locker, with as many copies of it side by side as it says. */
    private final class Play {
        private final Locker locker = build.get();
        private final List<List<Map<String, Object>>> moves;
        private final int copies;
        private final List<List<List<Map<String, Object>>>> courses = new ArrayList<>();
        private final Map<String, Thread> threads = new HashMap<>();
        private final Map<String, Locker.Release> grants = new ConcurrentHashMap<>();
        private final Map<String, String> grantKeys = new ConcurrentHashMap<>();
        /** The calls that have ended since the move began, by their copy and number. */
        private final Map<String, String> ended = new ConcurrentHashMap<>();
        /** Of each key: grants that were seen to return, less releases. */
        private final Map<String, Integer> open = new HashMap<>();

        Play(Map<String, Object> vector) {
            moves = list(vector.get("moves"));
            copies = ((Long) vector.getOrDefault("keys", 1L)).intValue();
            for (int copy = 0; copy < copies; copy++) {
                courses.add(declared(vector));
            }
        }

        /** met: how many calls met an interrupt right behind their grant, and how many of these passed it on. */
        String wrong(int[] met) throws InterruptedException {
            for (int move = 0; move < moves.size(); move++) {
                List<List<String>> unlocks = new ArrayList<>();
                List<String> meeting = new ArrayList<>();
                for (int copy = 0; copy < copies; copy++) {
                    unlocks.add(give(moves.get(move), copy, meeting));
                }
                long brief = brief(moves.get(move).get(0));
                for (long since = System.nanoTime() + brief; !settled(move, unlocks); Thread.sleep(0, 100_000)) {
                    if (System.nanoTime() - since > patience) {
                        return "move " + move + ": calls " + ended + ", unlocks " + unlocks + ", " + locker.counts();
                    }
                }
                met[0] += meeting.size();
                for (String call : meeting) {
                    met[1] += "cancelled".equals(ended.get(call)) ? 1 : 0;
                }
                ended.clear();
            }
            return null;
        }

        /** Gives the commands of a move to one copy; what its unlocks said. */
        private List<String> give(List<Map<String, Object>> commands, int copy, List<String> meeting) {
            List<String> unlocks = new ArrayList<>();
            String before = "";
            for (Map<String, Object> command : commands) {
                String op = (String) command.get("op");
                String key = name((String) command.get("key"), copy);
                String call = copy + ":" + command.get("call");
                switch (op) {
                    case "lock", "done", "limit" -> start(call, key, command);
                    case "try" -> {
                        Locker.Release grant = locker.tryLock(key);
                        ended(call, key, grant);
                        ended.put(call, grant == null ? "timeout" : "granted");
                    }
                    case "cancel" -> {
                        if (before.equals("unlock") && !ended.containsKey(call)) {
                            meeting.add(call);
                        }
                        Thread thread = threads.get(call);
                        if (thread != null) {
                            thread.interrupt();
                        }
                    }
                    case "unlock" -> unlocks.add(unlock(() -> locker.unlock(key), key));
                    case "lease" -> {
                        Locker.Release grant = grants.get(call);
                        unlocks.add(grant == null ? "unheld" : unlock(grant::release, grantKeys.get(call)));
                    }
                    case "free" -> {
                        if (openCount(key) > 0) {
                            unlocks.add(unlock(() -> locker.unlock(key), key));
                        }
                    }
                    default -> throw new AssertionError("no command is called " + op);
                }
                before = op;
            }
            return unlocks;
        }

        private void ended(String call, String key, Locker.Release grant) {
            if (grant != null) {
                grantKeys.put(call, key);
                grants.put(call, grant);
                synchronized (open) {
                    open.merge(key, 1, Integer::sum);
                }
            }
        }

        private int openCount(String key) {
            synchronized (open) {
                return open.getOrDefault(key, 0);
            }
        }

        private void start(String call, String key, Map<String, Object> command) {
            Long limit = (Long) command.get("ms");
            Thread thread = new Thread(() -> {
                try {
                    if (command.get("op").equals("done")) {
                        Thread.currentThread().interrupt();
                    }
                    long asked = System.nanoTime();
                    Locker.Release grant = limit == null ? locker.lock(key) : locker.tryLock(key, limit);
                    ended(call, key, grant);
                    boolean early = grant == null && System.nanoTime() - asked < limit * 900_000;
                    ended.put(call, grant != null ? "granted" : early ? "timeout before its time" : "timeout");
                } catch (InterruptedException interrupt) {
                    ended.put(call, "cancelled");
                }
            });
            thread.setDaemon(true);
            threads.put(call, thread);
            thread.start();
        }

        private String unlock(Runnable call, String key) {
            try {
                call.run();
                synchronized (open) {
                    open.merge(key, -1, Integer::sum);
                }
                return "released";
            } catch (KeyedMutex.UnheldKeyException unheld) {
                return "unheld";
            }
        }

        /** Whether each copy shows what one of its courses has here; then the others are out of the question. */
        private boolean settled(int move, List<List<String>> unlocks) {
            List<Map<String, Object>> calls = new ArrayList<>();
            List<Map<String, Object>> tables = new ArrayList<>();
            for (int copy = 0; copy < copies; copy++) {
                calls.add(new TreeMap<>());
                tables.add(new TreeMap<>());
            }
            ended.forEach((call, how) -> {
                String[] parts = call.split(":");
                calls.get(Integer.parseInt(parts[0])).put(parts[1], how);
            });
            locker.counts().forEach((key, counts) -> {
                String[] parts = key.split(":");
                Map<String, Object> row =
                        Map.of("refs", (long) counts.references(), "waiters", (long) counts.waiters());
                tables.get(Integer.parseInt(parts[1])).put(parts[0], row);
            });
            List<List<List<Map<String, Object>>>> left = new ArrayList<>();
            for (int copy = 0; copy < copies; copy++) {
                Map<String, Object> seen =
                        Map.of("calls", calls.get(copy), "unlocks", unlocks.get(copy), "table", tables.get(copy));
                List<List<Map<String, Object>>> right = new ArrayList<>(courses.get(copy));
                right.removeIf(course -> !course.get(move).equals(seen));
                if (right.isEmpty()) {
                    return false;
                }
                left.add(right);
            }
            for (int copy = 0; copy < copies; copy++) {
                courses.set(copy, left.get(copy));
            }
            return true;
        }
    }

    /** The nanoseconds of a limit that is over in its move. */
    private static long brief(Map<String, Object> command) {
        long limit = (Long) command.getOrDefault("ms", 0L);
        return limit <= 1_000 ? limit * 1_000_000 : 0;
    }

    /** The courses that a lock with these features may take: an interrupt before the call throws at a free key too. */
    private static List<List<Map<String, Object>>> declared(Map<String, Object> vector) {
        List<List<Map<String, Object>>> moves = list(vector.get("moves"));
        List<List<Map<String, Object>>> courses = new ArrayList<>(VectorsTest.<List<Map<String, Object>>>list(vector.get("courses")));
        for (int move = 0; move < moves.size(); move++) {
            int number = move;
            if (!moves.get(move).isEmpty() && moves.get(move).get(0).get("op").equals("done")) {
                courses.removeIf(course -> ((Map<?, ?>) course.get(number).get("calls")).containsValue("granted"));
            }
        }
        return courses;
    }

    /** The key of a copy. They are alike in all but some digits in the middle. */
    private static String name(String key, int copy) {
        return key + ":" + copy + ":the-same-end-of-all-keys";
    }

    @SuppressWarnings("unchecked")
    private static <T> List<T> list(Object value) {
        return (List<T>) value;
    }
}
