import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/**
 * The Java port's own tests: what a caller in this language meets, which the protocol can't say. No test sleeps: it
 * looks at the table until the state is there.
 */
final class KeyedMutexTest {
    private static final int TURNS = 200;

    public static void main(String[] arguments) throws Exception {
        waitersComeInOrder();
        aKeyHasOneHolder();
        anInterruptedWaiterLeavesFromTheMiddle();
        anInterruptBeforeTheCallThrowsAtAFreeKeyToo();
        lockKeepsAnInterruptForItsCaller();
        anInterruptThatMeetsAnUnlockLosesNoGrant();
        anInterruptedGrantThatHasEndedReleasesNobodyElse();
        aTryLeavesNoTrace();
        aTimeoutLeavesNoTrace();
        whatIsNotHeldIsNotUnlocked();
        aBlockEndsItsOwnGrantHoweverItIsLeft();
        keysThatShareAHashAreTwo();
        StepLogTest.main(arguments);
    }

    private static void waitersComeInOrder() throws Exception {
        KeyedMutex<String> mutex = new KeyedMutex<>();
        mutex.lock("a");
        List<Integer> came = new ArrayList<>();
        List<Thread> threads = new ArrayList<>();
        for (int number = 0; number < 50; number++) {
            int mine = number;
            threads.add(started(() -> {
                mutex.lock("a");
                came.add(mine);
                mutex.unlock("a");
            }));
            untilReferenced(mutex, "a", number + 2);
        }
        mutex.unlock("a");
        for (int number = 0; number < 50; number++) {
            threads.get(number).join();
        }
        for (int number = 0; number < 50; number++) {
            check(came.get(number) == number, "the order is " + came);
        }
        check(mutex.references().isEmpty(), "an entry is left");
    }

    private static void aKeyHasOneHolder() throws Exception {
        KeyedMutex<Integer> mutex = new KeyedMutex<>();
        int[] counts = new int[3];
        List<Thread> threads = new ArrayList<>();
        for (int thread = 0; thread < 4; thread++) {
            threads.add(started(() -> {
                for (int turn = 0; turn < 3000; turn++) {
                    try (KeyedMutex<Integer>.Lease lease = mutex.lock(turn % 3)) {
                        counts[turn % 3]++;
                    }
                }
            }));
        }
        for (Thread thread : threads) {
            thread.join();
        }
        for (int count : counts) {
            check(count == 4000, count + " of 4000");
        }
        check(mutex.references().isEmpty(), "an entry is left");
    }

    private static void anInterruptedWaiterLeavesFromTheMiddle() throws Exception {
        KeyedMutex<String> mutex = new KeyedMutex<>();
        mutex.lock("a");
        AtomicReference<String> middle = new AtomicReference<>();
        AtomicReference<String> last = new AtomicReference<>();
        Thread second = started(() -> middle.set(locked(mutex)));
        untilReferenced(mutex, "a", 2);
        Thread third = started(() -> last.set(locked(mutex)));
        untilReferenced(mutex, "a", 3);
        second.interrupt();
        second.join();
        check("interrupted".equals(middle.get()), middle.get());
        check(mutex.references().get("a") == 2, "the interrupted waiter is still counted");
        mutex.unlock("a");
        third.join();
        check("granted".equals(last.get()), last.get());
        mutex.unlock("a");
        check(mutex.references().isEmpty(), "an entry is left");
    }

    private static void anInterruptBeforeTheCallThrowsAtAFreeKeyToo() {
        KeyedMutex<String> mutex = new KeyedMutex<>();
        Thread.currentThread().interrupt();
        check("interrupted".equals(locked(mutex)), "granted");
        check(!Thread.currentThread().isInterrupted(), "the interrupt is still there");
        check(mutex.references().isEmpty(), "an entry is left");
    }

    private static void lockKeepsAnInterruptForItsCaller() {
        KeyedMutex<String> mutex = new KeyedMutex<>();
        Thread.currentThread().interrupt();
        mutex.lock("a").release();
        check(Thread.interrupted(), "the interrupt is gone");
    }

    private static void anInterruptThatMeetsAnUnlockLosesNoGrant() throws Exception {
        for (int turn = 0; turn < TURNS; turn++) {
            KeyedMutex<String> mutex = new KeyedMutex<>();
            mutex.lock("a");
            AtomicReference<String> first = new AtomicReference<>();
            AtomicReference<String> behind = new AtomicReference<>();
            Thread waiter = started(() -> first.set(locked(mutex)));
            untilReferenced(mutex, "a", 2);
            Thread next = started(() -> behind.set(locked(mutex)));
            untilReferenced(mutex, "a", 3);
            Thread interrupter = started(waiter::interrupt);
            mutex.unlock("a");
            waiter.join();
            if ("granted".equals(first.get())) {
                mutex.unlock("a");
            }
            next.join();
            interrupter.join();
            check("granted".equals(behind.get()), behind.get());
            mutex.unlock("a");
            check(mutex.references().isEmpty(), "an entry is left");
        }
    }

    /** unlock ends the waiter's grant before its thread has woken up, and the main thread holds when it does. */
    private static void anInterruptedGrantThatHasEndedReleasesNobodyElse() throws Exception {
        for (int turn = 0; turn < TURNS; turn++) {
            KeyedMutex<String> mutex = new KeyedMutex<>();
            mutex.lock("a");
            AtomicReference<String> first = new AtomicReference<>();
            Thread waiter = started(() -> first.set(locked(mutex)));
            untilReferenced(mutex, "a", 2);
            mutex.unlock("a");
            mutex.unlock("a");
            KeyedMutex<String>.Lease mine = mutex.lock("a");
            waiter.interrupt();
            waiter.join();
            check(first.get() != null, "the waiter has not returned");
            mine.release();
            check(mutex.references().isEmpty(), "an entry is left");
        }
    }

    private static void aTryLeavesNoTrace() {
        KeyedMutex<String> mutex = new KeyedMutex<>();
        check(mutex.tryLock("a") != null, "a free key is refused");
        check(mutex.tryLock("a") == null, "a held key is granted");
        check(mutex.references().get("a") == 1, "the refused try is counted");
        mutex.unlock("a");
        check(mutex.references().isEmpty(), "an entry is left");
    }

    private static void aTimeoutLeavesNoTrace() throws Exception {
        KeyedMutex<String> mutex = new KeyedMutex<>();
        check(mutex.tryLock("a", 0, TimeUnit.SECONDS) != null, "a free key is refused");
        check(mutex.tryLock("a", 0, TimeUnit.SECONDS) == null, "a held key is granted");
        check(mutex.tryLock("a", 1, TimeUnit.MILLISECONDS) == null, "a held key is granted");
        check(mutex.references().get("a") == 1, "the waiter that gave up is counted");
        try {
            mutex.tryLock("b", -1, TimeUnit.SECONDS);
            check(false, "a negative timeout is accepted");
        } catch (IllegalArgumentException expected) {
            check(!mutex.references().containsKey("b"), "the refused call has made an entry");
        }
    }

    private static void whatIsNotHeldIsNotUnlocked() {
        KeyedMutex<String> mutex = new KeyedMutex<>();
        check(unheld(() -> mutex.unlock("a")), "an unheld key is unlocked");
        KeyedMutex<String>.Lease old = mutex.lock("a");
        old.release();
        KeyedMutex<String>.Lease held = mutex.lock("a");
        check(unheld(old::release), "an old lease releases");
        old.close();
        check(mutex.references().get("a") == 1, "an old lease has released");
        held.release();
        check(mutex.references().isEmpty(), "an entry is left");
    }

    private static void aBlockEndsItsOwnGrantHoweverItIsLeft() {
        KeyedMutex<String> mutex = new KeyedMutex<>();
        try (KeyedMutex<String>.Lease lease = mutex.lock("a")) {
            throw new IllegalStateException("out of the block");
        } catch (IllegalStateException expected) {
            check(mutex.references().isEmpty(), "an entry is left");
        }
        KeyedMutex<String>.Lease other;
        try (KeyedMutex<String>.Lease lease = mutex.lock("a")) {
            mutex.unlock("a");
            other = mutex.lock("a");
        }
        check(mutex.references().get("a") == 1, "the block has released another's grant");
        other.release();
    }

    private static void keysThatShareAHashAreTwo() {
        KeyedMutex<String> mutex = new KeyedMutex<>();
        check("Aa".hashCode() == "BB".hashCode(), "they share none");
        mutex.lock("Aa");
        check(mutex.tryLock("BB") != null, "the other key is held");
    }

    private static String locked(KeyedMutex<String> mutex) {
        try {
            mutex.lockInterruptibly("a");
            return "granted";
        } catch (InterruptedException interrupt) {
            return "interrupted";
        }
    }

    private static boolean unheld(Runnable call) {
        try {
            call.run();
            return false;
        } catch (KeyedMutex.UnheldKeyException expected) {
            return true;
        }
    }

    private static Thread started(Runnable work) {
        Thread thread = new Thread(work);
        thread.start();
        return thread;
    }

    private static void untilReferenced(KeyedMutex<String> mutex, String key, int count) {
        while (mutex.references().getOrDefault(key, 0) != count) {
            Thread.onSpinWait();
        }
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }
}
