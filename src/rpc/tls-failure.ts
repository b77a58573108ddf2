/** Why TLS does not come about: the stable words, and the error that carries them from the transport to the user. */
import { AppError } from '../base/app-error.ts';

/**
 * - `file-missing`, `not-a-certificate`, `not-a-key`, `incomplete`: what was given cannot be used at all
 * - `key-mismatch`: the key belongs to another certificate
 * - `own-expired`, `own-not-yet-valid`: the given certificate is out of its time
 * - `server-is-plain`, `server-is-tls`: one side speaks TLS and the other does not
 * - `unknown-authority`, `expired`, `not-yet-valid`, `wrong-name`: the certificate of the server
 * - `certificate-required`, `certificate-refused`: what the server says about the certificate of this side
 */
export type TlsProblem =
  | 'file-missing'
  | 'not-a-certificate'
  | 'not-a-key'
  | 'incomplete'
  | 'key-mismatch'
  | 'own-expired'
  | 'own-not-yet-valid'
  | 'server-is-plain'
  | 'server-is-tls'
  | 'unknown-authority'
  | 'expired'
  | 'not-yet-valid'
  | 'wrong-name'
  | 'certificate-required'
  | 'certificate-refused';

/** No retry helps before a file, a flag or a server is changed. */
export class TlsFailure extends AppError {
  readonly reason: TlsProblem;

  constructor(reason: TlsProblem, message: string, hint: string, cause?: unknown) {
    super('Tls', message, { hint, details: { reason }, ...(cause === undefined ? {} : { cause }) });
    this.reason = reason;
  }
}
