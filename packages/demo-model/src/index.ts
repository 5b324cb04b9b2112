/** The folder of the bundled model, and the texts that belong to it, as URLs that bundlers understand. */

export const DEMO_MODEL = {
  folder: new URL('../model/', import.meta.url),
  /** From the training text. */
  calibration: new URL('../model/calibration.txt', import.meta.url),
  /** Never trained on. */
  evaluation: new URL('../model/evaluation.txt', import.meta.url),
  /** `input_ids` [96] and `logits` [96, 2048] by transformers in float32. */
  referenceLogits: new URL('../model/reference-logits.safetensors', import.meta.url),
} as const
