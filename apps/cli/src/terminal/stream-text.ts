/** Tokens → text as it comes, holding back what is no whole character yet. */

export interface TextDecoding {
  decode(tokens: readonly number[]): string
}

export interface TextStream {
  push(token: number): void
  /** Writes what was held back; gives the whole text. */
  end(): string
}

/** Tokens of the prompt that are decoded along, because some tokenizers drop a text's first space. */
const CONTEXT = 6

/** A character in several tokens is longer than this many only in broken text. */
const MOST_HELD = 12

export function streamText(
  tokenizer: TextDecoding,
  prompt: readonly number[],
  write: (piece: string) => void,
): TextStream {
  let known = prompt.slice(-CONTEXT)
  let fresh: number[] = []
  let text = ''
  const emit = (piece: string): void => {
    known = [...known, ...fresh].slice(-CONTEXT)
    fresh = []
    text += piece
    if (piece !== '') write(piece)
  }
  const pending = (): string => {
    const before = tokenizer.decode(known)
    return tokenizer.decode([...known, ...fresh]).slice(before.length)
  }
  return {
    push(token) {
      fresh.push(token)
      const piece = pending()
      if (piece.endsWith('\ufffd') && fresh.length < MOST_HELD) return
      emit(piece)
    },
    end() {
      if (fresh.length > 0) emit(pending())
      return text
    },
  }
}
