import { quote } from './error.ts'

/** What a {@link JsonError} is about: text that is not JSON, or a key that comes twice. */
export type JsonProblem = 'syntax' | 'duplicate-key'

/** Thrown by {@link JsonReader}; its callers turn it into a `SafetensorsError` with a place. */
export class JsonError extends Error {
  override readonly name = 'JsonError'
  readonly problem: JsonProblem
  /** The key that comes twice, for `duplicate-key`. */
  readonly key: string | undefined

  constructor(problem: JsonProblem, message: string, key?: string) {
    super(message)
    this.problem = problem
    this.key = key
  }
}

/** The kind of the value that comes next, told by its first character. */
export type JsonKind = 'object' | 'array' | 'string' | 'number' | 'boolean' | 'null'

// The nesting limit of the reference library's JSON parser.
const MAX_DEPTH = 128

const QUOTE = 0x22
const BACKSLASH = 0x5c
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ['\\', '\\'],
  ['/', '/'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
])

/**
 * A strict pull reader over JSON text (RFC 8259).
 *
 * `JSON.parse` is not enough for an untrusted header: it takes the last of two equal keys in
 * silence, it rounds large integers, it makes `1e2` and `100` the same, and it builds whatever the
 * text describes before anyone can refuse it. This reader hands out one value at a time, keeps the
 * text of numbers, refuses equal keys, lone surrogates and deep nesting, and lets the caller pass
 * over a value without building it.
 *
 * @throws JsonError from every method.
 */
export class JsonReader {
  readonly #text: string
  #at = 0
  #depth = 0

  constructor(text: string) {
    this.#text = text
  }

  /** The kind of the next value; nothing is consumed but white space before it. */
  peek(): JsonKind {
    this.#space()
    const character = this.#text[this.#at]
    switch (character) {
      case '{':
        return 'object'
      case '[':
        return 'array'
      case '"':
        return 'string'
      case 't':
      case 'f':
        return 'boolean'
      case 'n':
        return 'null'
      default:
        if (character === '-' || isDigit(this.#text.charCodeAt(this.#at))) return 'number'
        throw this.#unexpected('a value')
    }
  }

  /** Reads an object; `onMember` must consume the value of the key it is given. */
  readObject(onMember: (key: string) => void): void {
    this.#open('{')
    const seen = new Set<string>()
    if (!this.#take('}')) {
      do {
        this.#space()
        const key = this.readString()
        if (seen.has(key)) {
          const message = `the key ${quote(key)} comes twice in one object`
          throw new JsonError('duplicate-key', message, key)
        }
        seen.add(key)
        this.#need(':')
        onMember(key)
      } while (this.#take(','))
      this.#need('}')
    }
    this.#depth--
  }

  /** Reads an array; `onItem` must consume one value. */
  readArray(onItem: (index: number) => void): void {
    this.#open('[')
    if (!this.#take(']')) {
      let index = 0
      do onItem(index++)
      while (this.#take(','))
      this.#need(']')
    }
    this.#depth--
  }

  /** Reads a string and gives its value. */
  readString(): string {
    this.#need('"')
    const text = this.#text
    let value = ''
    let from = this.#at
    for (;;) {
      const code = text.charCodeAt(this.#at)
      if (code === QUOTE) {
        value += text.slice(from, this.#at++)
        return value
      }
      if (code === BACKSLASH) {
        value += text.slice(from, this.#at++)
        value += this.#escape()
        from = this.#at
      } else if (code >= 0x20) {
        this.#at++
      } else {
        // A control character, or NaN past the end of the text.
        throw this.#unexpected('the end of a string')
      }
    }
  }

  /** Reads a number and gives its text, as written. */
  readNumber(): string {
    this.#space()
    const from = this.#at
    // Scanned by hand: a regular expression would overflow its stack on megabytes of digits.
    if (this.#text[this.#at] === '-') this.#at++
    if (this.#text[this.#at] === '0') this.#at++
    else this.#digits()
    if (this.#text[this.#at] === '.') {
      this.#at++
      this.#digits()
    }
    const exponent = this.#text[this.#at]
    if (exponent === 'e' || exponent === 'E') {
      this.#at++
      const sign = this.#text[this.#at]
      if (sign === '+' || sign === '-') this.#at++
      this.#digits()
    }
    return this.#text.slice(from, this.#at)
  }

  /** Reads any value, checks it, and builds nothing. */
  skipValue(): void {
    switch (this.peek()) {
      case 'object':
        this.readObject(() => this.skipValue())
        break
      case 'array':
        this.readArray(() => this.skipValue())
        break
      case 'string':
        this.readString()
        break
      case 'number':
        this.readNumber()
        break
      default:
        this.#word()
    }
  }

  /** Checks that only white space is left. */
  end(): void {
    this.#space()
    if (this.#at !== this.#text.length) throw this.#unexpected('the end of the text')
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return
      this.#at++
    }
  }

  #take(character: string): boolean {
    this.#space()
    if (this.#text[this.#at] !== character) return false
    this.#at++
    return true
  }

  #need(character: string): void {
    if (!this.#take(character)) throw this.#unexpected(`\`${character}\``)
  }

  #open(character: string): void {
    this.#need(character)
    if (++this.#depth > MAX_DEPTH) {
      throw new JsonError('syntax', `values are nested more than ${MAX_DEPTH} deep`)
    }
  }

  #digits(): void {
    const from = this.#at
    while (isDigit(this.#text.charCodeAt(this.#at))) this.#at++
    if (this.#at === from) throw this.#unexpected('a digit')
  }

  #word(): void {
    for (const word of ['true', 'false', 'null']) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length
        return
      }
    }
    throw this.#unexpected('a value')
  }

  #escape(): string {
    const character = this.#text[this.#at++] ?? ''
    const plain = ESCAPES.get(character)
    if (plain !== undefined) return plain
    if (character !== 'u') throw new JsonError('syntax', `\`\\${character}\` is not an escape`)
    const unit = this.#hex()
    if (unit < 0xd800 || unit > 0xdfff) return String.fromCharCode(unit)
    // Half of a pair alone has no UTF-8 form, so such a name could never be written back.
    const low = unit < 0xdc00 && this.#text.startsWith('\\u', this.#at)
    if (low) {
      this.#at += 2
      const second = this.#hex()
      if (second >= 0xdc00 && second <= 0xdfff) return String.fromCharCode(unit, second)
    }
    throw new JsonError('syntax', `half of a surrogate pair at character ${this.#at}`)
  }

  #hex(): number {
    const digits = this.#text.slice(this.#at, this.#at + 4)
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw this.#unexpected('four hexadecimal digits')
    this.#at += 4
    return Number.parseInt(digits, 16)
  }

  #unexpected(wanted: string): JsonError {
    const found = this.#text[this.#at]
    const shown = found === undefined ? 'the text ends' : `${quote(found)} stands`
    return new JsonError('syntax', `${shown} at character ${this.#at} where ${wanted} should be`)
  }
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39
}
