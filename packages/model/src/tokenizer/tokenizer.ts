/** Text ↔ tokens and chat templates, through Hugging Face's own packages. */

import { Template } from '@huggingface/jinja'
import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers'
import { type Checkpoint, LowbitError } from '@lowbit/core'

export interface Message {
  readonly role: 'system' | 'user' | 'assistant'
  readonly content: string
}

export interface Tokenizer {
  /** Tokens of a text, without special tokens around it; special tokens written out in the text count. */
  encode(text: string): number[]
  decode(tokens: readonly number[]): string
  /** Whether the model has a chat template. */
  readonly hasTemplate: boolean
  /** The prompt that asks for the assistant's next message. */
  applyTemplate(messages: readonly Message[]): string
  /** Tokens that end an answer. */
  readonly stop: readonly number[]
}

export async function loadTokenizer(checkpoint: Checkpoint): Promise<Tokenizer> {
  const file = 'tokenizer.json'
  if (!checkpoint.files.includes(file)) {
    throw new LowbitError('missing-file', 'the model has no tokenizer.json', {
      file: `${checkpoint.location}/${file}`,
    })
  }
  const definition = await readJson(checkpoint, file)
  const settings = checkpoint.files.includes('tokenizer_config.json')
    ? await readJson(checkpoint, 'tokenizer_config.json')
    : {}
  let inner: HubTokenizer
  try {
    inner = new HubTokenizer(definition, settings)
  } catch (cause) {
    throw new LowbitError('bad-tokenizer', `can't be used: ${(cause as Error).message}`, {
      file,
      cause,
    })
  }
  const encode = (text: string): number[] => inner.encode(text, { add_special_tokens: false }).ids
  const template =
    typeof settings.chat_template === 'string'
      ? settings.chat_template
      : checkpoint.files.includes('chat_template.jinja')
        ? new TextDecoder().decode(await checkpoint.readFile('chat_template.jinja'))
        : undefined
  return {
    encode,
    decode: (tokens) => inner.decode([...tokens], { skip_special_tokens: false }),
    hasTemplate: template !== undefined,
    applyTemplate(messages) {
      if (template === undefined) {
        throw new LowbitError('no-template', 'the model has no chat template; give a plain prompt')
      }
      return new Template(template).render({
        messages,
        add_generation_prompt: true,
        bos_token: tokenText(settings.bos_token) ?? '',
        eos_token: tokenText(settings.eos_token) ?? '',
      })
    },
    stop: stopTokens(checkpoint.config, tokenText(settings.eos_token), encode),
  }
}

async function readJson(checkpoint: Checkpoint, file: string): Promise<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(await checkpoint.readFile(file)))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>
    }
  } catch (cause) {
    throw new LowbitError('bad-tokenizer', 'is not JSON', { file, cause })
  }
  throw new LowbitError('bad-tokenizer', 'is not a JSON object', { file })
}

/** Special tokens come as text or as an object with `content`. */
function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token
  if (typeof token === 'object' && token !== null && 'content' in token)
    return String(token.content)
  return undefined
}

function stopTokens(
  config: Readonly<Record<string, unknown>>,
  eos: string | undefined,
  encode: (text: string) => number[],
): number[] {
  const ids = [config.eos_token_id].flat().filter((id) => typeof id === 'number')
  const own = eos ? encode(eos) : []
  return [...new Set([...ids, ...(own.length === 1 ? own : [])])]
}
