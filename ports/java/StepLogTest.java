import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BiConsumer;

/**
 * The logs go to the folder that KMUTEX_LOGS names, for {@code kmutex check-trace}: sound.ndjson, and one for each clause
 * that a table with a mistake breaks. tests/ports/test_ports_logs.py has them judged.
 */
final class StepLogTest {
    public static void main(String[] arguments) throws Exception {
        theStepsAreRecorded();
        aLineThatCanNotBeWrittenHarmsNobody();
        wrongStepsAreRecordedAsTheyAre();
    }

    /** One of each thing that a clause is about, and then a crowd. */
    private static void theStepsAreRecorded() throws Exception {
        StringBuilder said = new StringBuilder();
        StepLog<Object> log = new StepLog<>(said);
        KeyedMutex<Object> mutex = new KeyedMutex<>(log);
        mutex.lock("other");
        KeyedMutex<Object>.Lease old = mutex.lock("a");
        AtomicInteger gaveUp = new AtomicInteger();
        Thread gone = waiter(mutex, gaveUp, 2);
        List<Thread> served = List.of(waiter(mutex, gaveUp, 3), waiter(mutex, gaveUp, 4));
        gone.interrupt();
        gone.join();
        check(gaveUp.get() == 1 && mutex.tryLock("a") == null, "a is held");
        check(mutex.tryLock("a", 1, TimeUnit.MILLISECONDS) == null, "a is held");
        old.release();
        for (Thread thread : served) {
            thread.join();
        }
        refused(() -> mutex.unlock("a"));
        refused(old::release);
        mutex.unlock("other");
        // An interrupt meets a grant, in one round of some.
        for (int before = gaveUp.get(); gaveUp.get() == before; ) {
            mutex.lock("a");
            Thread thread = waiter(mutex, gaveUp, 2);
            mutex.unlock("a");
            thread.interrupt();
            thread.join();
        }
        crowd(mutex);
        log.close(mutex.references().size());
        check(said.toString().endsWith("}\n") && said.indexOf("\"keys\": 0") > 0, "the log has no end");
        keep("sound", said);
    }

    private static void crowd(KeyedMutex<Object> mutex) throws InterruptedException {
        Object[] keys = {"a", null, "<Integer> 1", 1, "1", 1L, "\ud800", "<d800>", "\"\n"};
        List<Thread> threads = new ArrayList<>();
        for (int client = 0; client < 6; client++) {
            int first = client;
            threads.add(new Thread(() -> {
                for (int round = 0; round < 100; round++) {
                    mutex.lock(keys[(first + round) % keys.length]).release();
                }
            }));
        }
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
    }

    /** A thread that waits for "a" and has unlocked it when it ends; it is seen in the queue. */
    private static Thread waiter(KeyedMutex<Object> mutex, AtomicInteger gaveUp, int references) {
        Thread thread = new Thread(() -> {
            try {
                mutex.lockInterruptibly("a").release();
            } catch (InterruptedException interrupt) {
                gaveUp.incrementAndGet();
            }
        });
        thread.start();
        while (mutex.references().getOrDefault("a", 0) != references) {
            Thread.onSpinWait();
        }
        return thread;
    }

    private static void aLineThatCanNotBeWrittenHarmsNobody() {
        StepLog<String> log = new StepLog<>(new Appendable() {
            @Override
            public Appendable append(CharSequence text) throws IOException {
                throw new IOException("no space is left");
            }

            @Override
            public Appendable append(CharSequence text, int start, int end) throws IOException {
                return append(text);
            }

            @Override
            public Appendable append(char letter) throws IOException {
                return append("");
            }
        });
        new KeyedMutex<>(log).lock("a").release();
        Object unprintable = new Object() {
            @Override
            public String toString() {
                throw new IllegalStateException("no space is left");
            }
        };
        StepLog<Object> other = new StepLog<>(new StringBuilder());
        new KeyedMutex<>(other).lock(unprintable).release();
        saysWhy(log);
        saysWhy(other);
    }

    private static void saysWhy(StepLog<?> log) {
        try {
            log.close(0);
            throw new AssertionError("nothing is said of the lines that are missing");
        } catch (Exception problem) {
            check("no space is left".equals(problem.getMessage()), problem.toString());
        }
    }

    /** Tables with one mistake each, which log what they do; by the clause that the log must be convicted by. */
    private static void wrongStepsAreRecordedAsTheyAre() throws Exception {
        wrong("KM-EXCL", (table, log) -> { // takes the key from its holder
            ask(table, log, "one");
            table.get("a").addFirst("two");
            log.asks("a", "two");
        });
        wrong("KM-REF", (table, log) -> { // queues one call twice
            ask(table, log, "one");
            table.get("a").add("two");
            ask(table, log, "two");
        });
        wrong("KM-IDLE", (table, log) -> { // leaves an empty entry
            ask(table, log, "one");
            log.leaves("a", table.get("a").remove(), true, null);
        });
        wrong("KM-FIFO", (table, log) -> { // serves the youngest
            List.of("one", "two", "three").forEach(ticket -> ask(table, log, ticket));
            Deque<Object> queue = table.get("a");
            Object holder = queue.remove();
            queue.addFirst(queue.removeLast());
            log.leaves("a", holder, true, null);
        });
        wrong("KM-HANDOFF", (table, log) -> { // removes the entry at the unlock, whoever waits in it
            ask(table, log, "one");
            ask(table, log, "two");
            table.remove("a");
            log.leaves("a", "one", true, null);
        });
        wrong("KM-EXPIRED", (table, log) -> log.refused("a")); // refuses a free key
        wrong("KM-UNHELD", (table, log) -> log.leaves("a", "nobody", false, null)); // an unlock of a free key works
        wrong("KM-ATOMIC", (table, log) -> { // gives up, and stays in the queue
            ask(table, log, "one");
            ask(table, log, "two");
            log.leaves("a", "two", false, "interrupted");
        });
        wrong("KM-LIVE", (table, log) -> { // never wakes
            ask(table, log, "one");
            ask(table, log, "two");
        });
    }

    private static void ask(Map<String, Deque<Object>> table, StepLog<String> log, Object ticket) {
        table.computeIfAbsent("a", absent -> new ArrayDeque<>()).add(ticket);
        log.asks("a", ticket);
    }

    private static void wrong(String clause, BiConsumer<Map<String, Deque<Object>>, StepLog<String>> use) throws Exception {
        StringBuilder said = new StringBuilder();
        StepLog<String> log = new StepLog<>(said);
        Map<String, Deque<Object>> table = new HashMap<>();
        log.attach(table::get);
        use.accept(table, log);
        log.close(table.size());
        keep(clause, said);
    }

    private static void keep(String name, CharSequence said) throws IOException {
        String folder = System.getenv("KMUTEX_LOGS");
        if (folder != null) {
            Files.writeString(Path.of(folder, name + ".ndjson"), said);
        }
    }

    private static void refused(Runnable call) {
        try {
            call.run();
        } catch (KeyedMutex.UnheldKeyException expected) {
            return;
        }
        throw new AssertionError("it is held");
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }
}
