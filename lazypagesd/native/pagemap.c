/*
 * pagemap.c: decode the entries of a pagemap file.
 *
 * The schema is five varint fields (proto/images/pagemap.proto), so this is
 * not a protobuf parser but the one message of it that comes by the million.
 * tests/native/test_pagemap.py holds it equal to protobuf.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "image_map.h"

/* Field numbers of CRIU's pagemap_entry. */
enum {
	FIELD_VADDR = 1,
	FIELD_COMPAT_NR_PAGES, /* required, though 4.x writes 0 and field 5 */
	FIELD_IN_PARENT,       /* what there was before flags */
	FIELD_FLAGS,
	FIELD_NR_PAGES,
	NR_FIELDS,
};

enum {
	WIRE_VARINT = 0,
	MESSAGE_MIN = 4,   /* two required fields of a tag and a number each */
	TAG_BYTES_MAX = 5, /* a tag is a 32-bit number */
	KNOWN_FLAGS = LPD_ENTRY_PARENT | LPD_ENTRY_LAZY | LPD_ENTRY_PRESENT,
};

struct bytes {
	const uint8_t *at, *end;
};

/* One message as it is on the wire; a field given twice keeps the last. */
struct message {
	uint64_t values[NR_FIELDS];
	uint32_t seen; /* bit n: field n */
};

/* A refusal before it is known where in the file it is. */
struct refusal {
	enum lpd_image_fault fault;
	uint64_t value;
	const uint8_t *at; /* NULL: the message as a whole */
};

static int refuse(struct refusal *refusal, enum lpd_image_fault fault,
		  uint64_t value, const uint8_t *at)
{
	*refusal = (struct refusal){fault, value, at};
	return -EBADMSG;
}

static int long_varint_read(struct bytes *bytes, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64 && bytes->at < bytes->end;
	     shift += 7) {
		uint64_t byte = *bytes->at++;

		if (shift == 63 && byte > 1)
			return -EBADMSG;
		value |= (byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret_value = value;
			return 0;
		}
	}
	return -EBADMSG;
}

/* Most are one byte: all tags, flags, and short runs of pages. */
static inline int varint_read(struct bytes *bytes, uint64_t *ret_value)
{
	if (bytes->at == bytes->end || *bytes->at > 0x7f)
		return long_varint_read(bytes, ret_value);
	*ret_value = *bytes->at++;
	return 0;
}

static int field_read(struct bytes *bytes, struct message *message,
		      struct refusal *refusal)
{
	const uint8_t *at = bytes->at;
	uint64_t tag, number, value;

	if (varint_read(bytes, &tag) || bytes->at - at > TAG_BYTES_MAX)
		return refuse(refusal, LPD_IMAGE_VARINT, 0, at);
	number = tag >> 3;
	if (number == 0 || number >= NR_FIELDS)
		return refuse(refusal, LPD_IMAGE_UNKNOWN_FIELD, number, at);
	if ((tag & 7) != WIRE_VARINT)
		return refuse(refusal, LPD_IMAGE_WIRE_TYPE, number, at);

	at = bytes->at;
	if (varint_read(bytes, &value))
		return refuse(refusal, LPD_IMAGE_VARINT, 0, at);
	message->values[number] = value;
	message->seen |= 1U << number;
	return 0;
}

static bool message_has(const struct message *message, unsigned field)
{
	return message->seen & (1U << field);
}

static int message_read(struct bytes bytes, struct message *message,
			struct refusal *refusal)
{
	memset(message, 0, sizeof(*message));
	while (bytes.at < bytes.end) {
		int r = field_read(&bytes, message, refusal);

		if (r)
			return r;
	}
	for (unsigned field = FIELD_VADDR; field <= FIELD_COMPAT_NR_PAGES;
	     field++) {
		if (!message_has(message, field))
			return refuse(refusal, LPD_IMAGE_MISSING_FIELD, field,
				      NULL);
	}
	return 0;
}

/* The casts are protobuf's: a uint32 on the wire is cut to its low half. */
static uint32_t message_flags(const struct message *message)
{
	uint32_t flags = (uint32_t)message->values[FIELD_FLAGS];

	if (message->values[FIELD_IN_PARENT])
		return flags | LPD_ENTRY_PARENT;
	return message_has(message, FIELD_FLAGS) ? flags : LPD_ENTRY_PRESENT;
}

static uint64_t message_nr_pages(const struct message *message)
{
	if (message_has(message, FIELD_NR_PAGES))
		return message->values[FIELD_NR_PAGES];
	return (uint32_t)message->values[FIELD_COMPAT_NR_PAGES];
}

static bool flags_valid(uint32_t flags)
{
	const uint32_t both = LPD_ENTRY_PARENT | LPD_ENTRY_PRESENT;

	return flags && !(flags & ~(uint32_t)KNOWN_FLAGS) &&
	       (flags & both) != both;
}

/* Append one entry to the map, if it may come next. */
static int entry_append(struct lpd_pagemap *map, const struct message *message,
			struct refusal *refusal)
{
	uint64_t start = message->values[FIELD_VADDR];
	uint64_t nr_pages = message_nr_pages(message);
	uint32_t flags = message_flags(message);

	if (nr_pages == 0 || nr_pages > UINT32_MAX)
		return refuse(refusal, LPD_IMAGE_NR_PAGES, nr_pages, NULL);
	if (!flags_valid(flags))
		return refuse(refusal, LPD_IMAGE_FLAGS, flags, NULL);
	if (start % LPD_PAGE_SIZE)
		return refuse(refusal, LPD_IMAGE_UNALIGNED, start, NULL);
	/* In this order nothing overflows: nr_pages is 32 bits by now. */
	if (start >= LPD_USER_SPACE_END ||
	    nr_pages * LPD_PAGE_SIZE > LPD_USER_SPACE_END - start)
		return refuse(refusal, LPD_IMAGE_PAST_LIMIT, start, NULL);
	if (start < map->end)
		return refuse(refusal, LPD_IMAGE_UNSORTED, start, NULL);
	if (map->nr_entries == map->capacity)
		return -ENOSPC;

	map->entries[map->nr_entries] = (struct lpd_entry){
		.start = start,
		.offset = map->pages_size,
		.nr_pages = (uint32_t)nr_pages,
		.flags = flags,
	};
	map->end = start + nr_pages * LPD_PAGE_SIZE;
	if (flags & LPD_ENTRY_PRESENT)
		map->pages_size += nr_pages * LPD_PAGE_SIZE;
	return 0;
}

static int record_decode(struct lpd_pagemap *map, struct bytes record,
			 struct refusal *refusal)
{
	struct message message;
	int r;

	/*
	 * Who counts looks into nothing but what is too short for an entry:
	 * the zeros of a sparse file must not be counted as records.
	 */
	if (!map->entries && record.end - record.at >= MESSAGE_MIN)
		return 0;
	r = message_read(record, &message, refusal);
	return r ? r : entry_append(map, &message, refusal);
}

/* The size of the next record; left are the bytes from there to the end. */
static int record_size(const uint8_t *at, uint64_t left, uint32_t *ret_size,
		       struct refusal *refusal)
{
	memcpy(ret_size, at, sizeof(*ret_size));
	if (*ret_size > left - sizeof(*ret_size))
		return refuse(refusal, LPD_IMAGE_PAST_FILE, *ret_size, NULL);
	if (*ret_size > LPD_RECORD_MAX)
		return refuse(refusal, LPD_IMAGE_TOO_LONG, *ret_size, NULL);
	return 0;
}

/* Take one record; *ret_taken is 0 when buf does not hold the whole of it. */
static int record_take(struct lpd_pagemap *map, struct bytes buf,
		       size_t *ret_taken, struct refusal *refusal)
{
	uint64_t left = map->file_size - map->position;
	size_t len = buf.end - buf.at;
	uint32_t size;
	int r;

	*ret_taken = 0;
	if (left < sizeof(size))
		return refuse(refusal, LPD_IMAGE_TRUNCATED, left, NULL);
	if (len < sizeof(size))
		return 0;
	r = record_size(buf.at, left, &size, refusal);
	if (r || len - sizeof(size) < size)
		return r;

	buf.at += sizeof(size);
	buf.end = buf.at + size;
	r = record_decode(map, buf, refusal);
	if (!r)
		*ret_taken = sizeof(size) + size;
	return r;
}

int lpd_pagemap_decode(struct lpd_pagemap *map, const uint8_t *buf, size_t len,
		       struct lpd_image_error *ret_error)
{
	struct bytes bytes = {buf, buf + len};

	while (bytes.at < bytes.end) {
		struct refusal refusal;
		size_t taken;
		int r = record_take(map, bytes, &taken, &refusal);

		if (r == -EBADMSG)
			*ret_error = (struct lpd_image_error){
				.fault = refusal.fault,
				.offset = map->position +
					  (refusal.at ? refusal.at - bytes.at
						      : 0),
				.value = refusal.value,
			};
		if (r || !taken)
			return r;
		bytes.at += taken;
		map->position += taken;
		map->nr_entries++;
	}
	return 0;
}
