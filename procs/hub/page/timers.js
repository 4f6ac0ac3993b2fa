/** What is to happen later, by name: at most once each, and never after it was forgotten. */
export class Timers {
  #ids = new Map();

  after(name, ms, run) {
    this.forget(name);
    const due = () => {
      this.#ids.delete(name);
      run();
    };
    this.#ids.set(name, setTimeout(due, ms));
  }

  has(name) {
    return this.#ids.has(name);
  }

  forget(...names) {
    for (const name of names) {
      clearTimeout(this.#ids.get(name));
      this.#ids.delete(name);
    }
  }

  forgetAll() {
    this.forget(...this.#ids.keys());
  }
}
