/** Assertions without a test runner: they throw an error that says what is and what should be. */

class Expectation {
  readonly #actual: unknown
  readonly #what: string
  readonly #wanted: boolean

  constructor(actual: unknown, what: string, wanted = true) {
    this.#actual = actual
    this.#what = what
    this.#wanted = wanted
  }

  get not(): Expectation {
    return new Expectation(this.#actual, this.#what, !this.#wanted)
  }

  toBe(expected: unknown): void {
    this.#check(Object.is(this.#actual, expected), 'is to be', expected)
  }

  /** The same numbers, texts and keys all the way down; typed arrays must be of one kind. */
  toEqual(expected: unknown): void {
    this.#check(equal(this.#actual, expected), 'is to equal', expected)
  }

  /** Has these keys with equal values, and maybe others. */
  toMatchObject(expected: Readonly<Record<string, unknown>>): void {
    const actual = this.#actual as Record<string, unknown>
    const same = Object.entries(expected).every(([key, value]) => equal(actual[key], value))
    this.#check(same, 'is to have', expected)
  }

  toContain(expected: unknown): void {
    this.#check((this.#actual as readonly unknown[]).includes(expected), 'is to contain', expected)
  }

  toBeLessThan(bound: number): void {
    this.#check((this.#actual as number) < bound, 'is to be less than', bound)
  }

  toBeLessThanOrEqual(bound: number): void {
    this.#check((this.#actual as number) <= bound, 'is to be at most', bound)
  }

  toBeGreaterThan(bound: number): void {
    this.#check((this.#actual as number) > bound, 'is to be more than', bound)
  }

  toBeGreaterThanOrEqual(bound: number): void {
    this.#check((this.#actual as number) >= bound, 'is to be at least', bound)
  }

  #check(holds: boolean, relation: string, expected: unknown): void {
    if (holds === this.#wanted) return
    const verb = this.#wanted ? relation : relation.replace('is to', 'is not to')
    fail(`${this.#what && `${this.#what}: `}${show(this.#actual)} ${verb} ${show(expected)}`)
  }
}

export function expect(actual: unknown, what = ''): Expectation {
  return new Expectation(actual, what)
}

expect.fail = fail

function fail(message: string): never {
  throw new Error(message)
}

function equal(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false
  if (ArrayBuffer.isView(a) || Array.isArray(a)) {
    const [x, y] = [a, b] as unknown as [ArrayLike<unknown>, ArrayLike<unknown>]
    if (x.length !== y.length) return false
    for (let i = 0; i < x.length; i++) if (!equal(x[i], y[i])) return false
    return true
  }
  const [x, y] = [a, b] as [Record<string, unknown>, Record<string, unknown>]
  const keys = Object.keys(x)
  return keys.length === Object.keys(y).length && keys.every((key) => equal(x[key], y[key]))
}

const MOST_SHOWN = 200

function show(value: unknown): string {
  const text = ArrayBuffer.isView(value)
    ? `[${(value as Float32Array).slice(0, 40).join(', ')}]`
    : typeof value === 'object'
      ? JSON.stringify(value)
      : String(value)
  return text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)} …` : text
}
